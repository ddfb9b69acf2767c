"""Tokenising of requests: in one thread, and in portions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from embfit.model import Encoder
from embfit.server.tokenizing import TEXTS, TokenizingThread
from embfit.tokens import Tokens
from tests.conftest import TEXTS as SENTENCES


@pytest.fixture
def tokenizing() -> Iterator[TokenizingThread]:
    made = TokenizingThread()
    yield made
    made.close()


def test_portions_give_the_tokens_of_the_whole(tokenizing: TokenizingThread, tiny_encoder: Encoder) -> None:
    texts = SENTENCES * 20
    assert len(texts) > 2 * TEXTS
    found = asyncio.run(tokenizing.tokens(lambda portion: tiny_encoder.tokenize(portion, "document"), texts))
    expected = tiny_encoder.tokenize(texts, "document")
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.starts, expected.starts)


def test_no_texts_give_no_tokens(tokenizing: TokenizingThread, tiny_encoder: Encoder) -> None:
    assert len(asyncio.run(tokenizing.tokens(lambda portion: tiny_encoder.tokenize(portion, "query"), []))) == 0


def test_a_short_request_waits_for_one_portion_of_a_long_one(tokenizing: TokenizingThread) -> None:
    threads = Threads()

    async def requests() -> None:
        long = asyncio.create_task(tokenizing.tokens(threads, ["long"] * (5 * TEXTS)))
        await asyncio.to_thread(threads.started.wait, 10)  # its first portion is in work
        short = asyncio.create_task(tokenizing.tokens(threads, ["short"]))
        await asyncio.sleep(0)
        threads.go_on.set()
        await asyncio.gather(long, short)

    asyncio.run(requests())
    lengths = [len(portion) for portion in threads.portions]
    assert sum(lengths) == 5 * TEXTS + 1
    assert lengths.index(1) == 1
    assert threads.names == {"embfit-tokens_0"}


class Threads:
    """A tokenizer that records its portions and threads, and waits in each call until it may go on."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.portions: list[Sequence[str]] = []
        self.started, self.go_on = threading.Event(), threading.Event()

    def __call__(self, texts: Sequence[str]) -> Tokens:
        self.names.add(threading.current_thread().name)
        self.portions.append(texts)
        self.started.set()
        self.go_on.wait(10)
        count = len(texts)
        return Tokens(np.ones(count, np.int32), np.arange(count + 1), np.zeros(count, bool), None)
