"""What quality costs in bytes and time: fewer dimensions, fewer bits, and a shortlist that whole vectors rank anew.

The funnel searches small vectors for a shortlist and ranks it by the whole ones (Kusupati et al. 2022, section 4.3).
The small ones must be in memory; of the whole ones a search reads the shortlist alone, so they may stay on a disk.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embfit.evaluator.hits import Hits
from embfit.index.compressed import CompressedIndex, Cut, Format, bytes_per_document, rescore

TIMED = 50  # queries searched alone for the latency


@dataclass(frozen=True)
class Setting:
    """One way to keep and search the vectors, and what it reaches.

    Args:
        dims: dimensions searched.
        format: how each is kept in memory.
        shortlist: documents that whole float32 vectors rank anew; None where the search has the last word.
        value: the metric.
        share: of what an exhaustive search of whole float32 vectors reaches.
        bytes_per_document: in memory; a shortlist needs the whole vectors too, which may stay on a disk.
        milliseconds: one query searched alone, the median.
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
        metric: that was measured.
        settings: in order of falling dimensions.
        kept: share of the exhaustive search's quality to be kept.
        cheapest: the setting with the fewest bytes, then the least time, that keeps it.
    """

    metric: str
    settings: Sequence[Setting]
    kept: float
    cheapest: Setting


def measure_funnel(
    queries: np.ndarray,
    documents: np.ndarray,
    dims: Sequence[int],
    formats: Sequence[Format],
    shortlists: Sequence[int],
    depth: int,
    metric: str,
    value: Callable[[Hits], float],
    kept: float,
) -> Funnel:
    """Search the vectors in every setting.

    Args:
        queries: [Q, D] floats.
        documents: [N, D] floats, possibly memory-mapped; one format at a time is held in memory.
        dims: to search; whole vectors are searched as well.
        formats: to keep them in; float32 is needed for the whole ones, and always among them there.
        shortlists: sizes; larger than the corpus means all of it.
        depth: documents that a search returns.
        metric: name of the value.
        value: hits → the metric's mean.
        kept: share of quality to be kept.
    """
    whole = documents.shape[1]
    settings: list[Setting] = []
    for dim in sorted({*dims, whole}, reverse=True):
        first: list[Format] = ["float32"] if dim == whole else []
        for form in dict.fromkeys([*first, *formats]):
            few, many = Cut(queries, dim)[:], Cut(documents, dim)
            index = CompressedIndex(many, form)
            bytes_ = bytes_per_document(dim, form)
            for size, search in _searches(index, few, queries, documents, shortlists, depth):
                if size is not None and (dim, form) == (whole, "float32"):
                    continue  # whole vectors have nothing to add to themselves
                reached = value(search(slice(None)))
                best = settings[0].value if settings else reached
                share = reached / best if best else 1.0
                settings.append(Setting(dim, form, size, reached, share, bytes_, _latency(search, len(queries))))
    enough = [setting for setting in settings if setting.share >= kept]
    cheapest = min(enough, key=lambda setting: (setting.bytes_per_document, setting.milliseconds))
    return Funnel(metric, settings, kept, cheapest)


def _searches(
    index: CompressedIndex,
    few: np.ndarray,
    queries: np.ndarray,
    documents: np.ndarray,
    shortlists: Sequence[int],
    depth: int,
) -> Iterator[tuple[int | None, Callable[[slice], Hits]]]:
    """Yield the search of small vectors alone, and with a shortlist of each size."""
    yield None, lambda some: index.search(few[some], depth)
    for size in sorted({min(size, len(documents)) for size in shortlists}):

        def through(some: slice, size: int = size) -> Hits:
            _, rows = index.search(few[some], size)
            return rescore(queries[some], documents, rows, depth)

        yield size, through


def _latency(search: Callable[[slice], Hits], count: int) -> float:
    """Return the median milliseconds of a query that is searched alone; the first warms up."""
    seconds = []
    for row in range(min(TIMED, count)):
        started = time.perf_counter()
        search(slice(row, row + 1))
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[1:] or seconds)
