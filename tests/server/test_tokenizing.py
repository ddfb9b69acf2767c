"""Tokenising of requests: in portions, and in one thread at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from embfit.model import Encoder
from embfit.server.tokenizing import SHORT, TEXTS, Tokenizing
from embfit.tokens import Tokens
from tests.conftest import TEXTS as SENTENCES


@pytest.fixture
def tokenizing() -> Iterator[Tokenizing]:
    made = Tokenizing()
    yield made
    made.close()


def test_portions_give_the_tokens_of_the_whole(tokenizing: Tokenizing, tiny_encoder: Encoder) -> None:
    texts = SENTENCES * 20
    assert len(texts) > 2 * TEXTS
    found = asyncio.run(tokenizing.tokens(lambda portion: tiny_encoder.tokenize(portion, "document"), texts))
    expected = tiny_encoder.tokenize(texts, "document")
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.starts, expected.starts)


def test_no_texts_give_no_tokens(tokenizing: Tokenizing, tiny_encoder: Encoder) -> None:
    assert len(asyncio.run(tokenizing.tokens(lambda portion: tiny_encoder.tokenize(portion, "query"), []))) == 0


def test_short_texts_take_no_thread_and_long_ones_do(tokenizing: Tokenizing) -> None:
    threads = Threads()
    asyncio.run(tokenizing.tokens(threads, ["short"]))
    asyncio.run(tokenizing.tokens(threads, ["x" * (SHORT + 1)]))
    assert threads.names == [threading.current_thread().name, "embfit-tokens_0"]


def test_a_short_request_waits_for_one_portion_of_a_long_one(tokenizing: Tokenizing) -> None:
    threads = Threads()

    async def requests() -> None:
        long = asyncio.create_task(tokenizing.tokens(threads, ["x" * SHORT] * (5 * TEXTS)))
        await asyncio.to_thread(threads.started.wait, 10)  # its first portion is in work
        short = asyncio.create_task(tokenizing.tokens(threads, ["short"]))
        await asyncio.sleep(0)
        threads.go_on.set()
        await asyncio.gather(long, short)

    threads.go_on.clear()
    asyncio.run(requests())
    lengths = [len(portion) for portion in threads.portions]
    assert sum(lengths) == 5 * TEXTS + 1
    assert lengths.index(1) == 1
    assert threads.most == 1


class Threads:
    """A tokenizer that records its calls, and waits in each until it may go on."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.portions: list[Sequence[str]] = []
        self.started, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.most = self._running = 0

    def __call__(self, texts: Sequence[str]) -> Tokens:
        self._running += 1
        self.most = max(self.most, self._running)
        self.names.append(threading.current_thread().name)
        self.portions.append(texts)
        self.started.set()
        self.go_on.wait(10)
        self._running -= 1
        count = len(texts)
        return Tokens(np.ones(count, np.int32), np.arange(count + 1), np.zeros(count, bool), None)
