"""What quality costs in bytes and time: fewer dimensions, fewer bits, and a shortlist that whole vectors rerank.

The funnel searches small vectors for a shortlist and ranks it by the whole ones (Kusupati et al. 2022, section 4.3).
The small vectors must be in memory. A search reads only the shortlist's whole vectors, so those may stay on disk.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from embfit.evaluator.judging import FunnelSettings
from embfit.index.compressed import CompressedIndex, Format, bytes_per_document
from embfit.index.inner_products import best, pair_scores
from embfit.index.protocol import Hits
from embfit.vectors import Vectors

TIMED = 50  # queries searched one at a time for the latency

Search: TypeAlias = Callable[[int, int], Hits]
"""Searches for the queries from `start` to `stop`, as a slice."""


@dataclass(frozen=True)
class Setting:
    """One way to store and search the vectors, with its quality and cost.

    Args:
        dims: how many dimensions are searched.
        format: how each dimension is stored in memory.
        shortlist: how many documents whole float32 vectors rerank; None without reranking.
        value: the metric's value.
        share: `value` divided by that of an exhaustive search of whole float32 vectors.
        bytes_per_document: memory for a document; a shortlist also needs the whole vectors, which may stay on disk.
        milliseconds: median time of a query that is searched alone.
    """

    dims: int
    format: Format
    shortlist: int | None
    value: float
    share: float
    bytes_per_document: int
    milliseconds: float


@dataclass(frozen=True)
class Funnel:
    """All settings that were measured, the exhaustive search of whole vectors first.

    Args:
        metric: the metric that was measured.
        settings: all that were measured, by decreasing dimensions.
        kept: the share of the exhaustive search's quality that the cheapest setting must keep.
        cheapest: of the settings that keep it, the one with the fewest bytes, then the least time.
    """

    metric: str
    settings: Sequence[Setting]
    kept: float
    cheapest: Setting


def measure_funnel(
    queries: Vectors[np.ndarray],
    documents: Vectors[np.ndarray],
    dims: Sequence[int],
    wanted: FunnelSettings,
    depth: int,
    metric: str,
    value: Callable[[Hits], float],
) -> Funnel:
    """Search the vectors in every setting.

    Args:
        queries: their vectors, one each.
        documents: their vectors, one each, possibly memory-mapped; one format at a time is held in memory.
        dims: dimensions to search; whole vectors are searched as well.
        wanted: shortlists (a size beyond the corpus means all of it), formats (whole vectors are always searched as
            float32 too) and the share of quality to keep.
        depth: how many documents a search returns.
        metric: the metric's name.
        value: returns the metric's mean over the hits of all queries.
    """
    settings: list[Setting] = []
    whole = documents.width
    for dim in sorted({*dims, whole}, reverse=True):
        first: list[Format] = ["float32"] if dim == whole else []
        small = Vectors(queries.cut(dim).flat())  # cut once, so that a search's time does not include it
        for form in dict.fromkeys([*first, *wanted.formats]):
            index = CompressedIndex.build(documents.cut(dim), form)
            bytes_ = bytes_per_document(dim, form)
            for size, search in _searches(index, small, queries, documents, wanted.shortlists, depth):
                if size is not None and (dim, form) == (whole, "float32"):
                    continue  # reranking by the vectors that were searched changes nothing
                reached = value(search(0, len(queries)))
                highest = settings[0].value if settings else reached
                share = reached / highest if highest else 1.0
                settings.append(Setting(dim, form, size, reached, share, bytes_, _latency(search, len(queries))))
    enough = [setting for setting in settings if setting.share >= wanted.quality_kept]
    cheapest = min(enough, key=lambda setting: (setting.bytes_per_document, setting.milliseconds))
    return Funnel(metric, settings, wanted.quality_kept, cheapest)


def _searches(
    index: CompressedIndex,
    small: Vectors[np.ndarray],
    queries: Vectors[np.ndarray],
    documents: Vectors[np.ndarray],
    shortlists: Sequence[int],
    depth: int,
) -> Iterator[tuple[int | None, Search]]:
    """Yield the search of small vectors alone, and with a shortlist of each size."""
    yield None, lambda start, stop: index.search(small.part(start, stop), depth)
    for size in sorted({min(size, len(documents)) for size in shortlists}):

        def reranked(start: int, stop: int, size: int = size) -> Hits:
            _, rows = index.search(small.part(start, stop), size)
            return best(pair_scores(queries.part(start, stop), documents, rows), rows, depth)

        yield size, reranked


def _latency(search: Search, count: int) -> float:
    """Return the median milliseconds of a query that is searched alone; the first one is a warm-up."""
    seconds = []
    for row in range(min(TIMED, count)):
        started = time.perf_counter()
        search(row, row + 1)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[1:] or seconds)
