"""Tokenises the texts of requests, one portion at a time.

A tokenizer must not run in two threads at once. Short texts are tokenised on the event loop if no other portion is in
work, because waking a thread takes longer than they do. Everything else goes to one thread, in portions, so that a
request with many texts does not block a short one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from embfit.tokens import Tokens, concatenate

TEXTS = 64  # of a portion
CHARACTERS = 200_000  # of these together
SHORT = 2_000  # characters of a portion that is tokenised on the event loop: half a millisecond

Tokenizer = Callable[[Sequence[str]], Tokens]


class Tokenizing:
    """The tokenizers' thread, shared by all requests and versions."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "embfit-tokens")
        self._in_use = threading.Lock()

    async def tokens(self, tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
        """Tokenise texts.

        Args:
            tokenizer: tokenises a portion of them.
            texts: the texts; none give no tokens.
        """
        return concatenate([await self._portion(tokenizer, portion) for portion in _portions(texts)])

    def close(self) -> None:
        """End the thread; portions that wait are dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _portion(self, tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
        if sum(map(len, texts)) <= SHORT and self._in_use.acquire(blocking=False):
            try:
                return tokenizer(texts)
            finally:
                self._in_use.release()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._in_thread, tokenizer, texts)

    def _in_thread(self, tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
        with self._in_use:
            return tokenizer(texts)


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
