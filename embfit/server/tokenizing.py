"""Tokenises the texts of requests in one thread, a portion at a time.

A tokenizer must not run in two threads at once. Between the portions of a request with many texts, the thread
tokenises those of other requests, so a short request does not wait for a long one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from embfit.tokens import Tokens, concatenate

TEXTS = 64  # of a portion, at most
CHARACTERS = 200_000  # of these together

Tokenizer: TypeAlias = Callable[[Sequence[str]], Tokens]
"""Tokenises the texts of a portion."""


class TokenizingThread:
    """The tokenizers' thread, shared by all requests and versions."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "embfit-tokens")

    async def tokens(self, tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
        """Tokenise the texts of a request."""
        loop = asyncio.get_running_loop()
        return concatenate(
            [await loop.run_in_executor(self._thread, tokenizer, portion) for portion in _portions(texts)]
        )

    def close(self) -> None:
        """End the thread; portions that wait are dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _portions(texts: Sequence[str]) -> list[list[str]]:
    """Cut texts into portions that are tokenised one after another."""
    portions: list[list[str]] = []
    characters = 0
    for text in texts:
        if not portions or len(portions[-1]) == TEXTS or characters + len(text) > CHARACTERS:
            portions.append([])
            characters = 0
        portions[-1].append(text)
        characters += len(text)
    return portions
