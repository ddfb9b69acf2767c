"""Sends a share of the live searches to a second version and measures how its answers differ."""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from embfit.server.batch_models import split
from embfit.server.batching import Batcher, QueueFullError, StoppedError
from embfit.server.live_version import LiveBundle
from embfit.server.metrics import Metrics
from embfit.server.tokenizing import TokenizingThread

log = logging.getLogger(__name__)

OVERLAP = 10  # number of top documents that are compared


@dataclass(frozen=True)
class ShadowComparison:
    """Compares the live version's answers with those of a second version, which answers no request itself.

    Args:
        share: the share of the queries to send (0 to 1).
        batcher: embeds the query while nothing else waits.
        tokenizing: tokenises the query.
        searching: the threads for searching.
        metrics: record an answer's time and its overlap with the live answer.
    """

    share: float
    batcher: Batcher
    tokenizing: TokenizingThread
    searching: Executor
    metrics: Metrics

    def asks(self, query: str) -> bool:
        """Return whether a query is in the share; the same query always gives the same answer."""
        return zlib.crc32(query.encode()) < self.share * 2**32

    async def compare(self, shadow: LiveBundle, query: str, found: Sequence[str]) -> None:
        """Search the shadow and measure its answer. Errors are logged and never raised.

        Args:
            shadow: the second version.
            query: the text.
            found: the ids that the live version found, best first.
        """
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        first = found[:OVERLAP]
        shadow.acquire()
        try:
            tokens = await self.tokenizing.tokens(shadow.texts.tokenizer("query"), [query])
            job = self.batcher.submit(shadow.texts, split(tokens), tokens.lengths.tolist(), background=True)
            parts: list[np.ndarray] = await asyncio.wrap_future(job.future)
            vectors = shadow.texts.joined(tokens, parts)
            searcher = shadow.bundle.searcher
            hits = await loop.run_in_executor(
                self.searching, lambda: searcher.hits(searcher.search([query], max(len(first), 1), vectors=vectors))[0]
            )
            self.metrics.shadow_seconds.observe(time.perf_counter() - started)
            if first:
                self.metrics.shadow_overlap.observe(len({*first} & {hit.id for hit in hits}) / len(first))
        except (QueueFullError, StoppedError):
            pass  # live requests come first
        except Exception as error:
            log.warning("the shadow %s did not answer: %s", shadow.label, error)
        finally:
            shadow.release()
