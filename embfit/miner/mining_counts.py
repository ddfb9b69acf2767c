"""What mining counts: negatives by source, candidates removed by each filter, and histograms of scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from embfit.miner.examples import TrainingQueries
from embfit.miner.judged_negatives import JUDGED
from embfit.miner.selection import Negatives

BINS = 40


class MiningCounts:
    """The counts of all blocks so far. Scores are kept at four bytes each, because histograms need all of them.

    Args:
        wanted: the negatives wanted per query; queries with fewer are counted.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.counts: Counter[str] = Counter()
        self.removed: Counter[str] = Counter()
        self.negatives: Counter[str] = Counter()
        self.queries: Counter[str] = Counter()
        self.scores: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}

    def add(self, examples: TrainingQueries, found: Negatives) -> None:
        """Add a block; dropped examples only count as dropped and unreached."""
        kept = ~found.dropped
        counted = kept[found.rows.owners]
        sources, owners = found.sources[counted], found.rows.owners[counted]
        lengths = found.rows.lengths[kept]
        judged = int((sources == JUDGED).sum())
        self.counts.update(
            mined=len(sources) - judged,
            judged=judged,
            judged_unused=found.judged_unused,
            short=int((lengths < self.wanted).sum()),
            without=int((lengths == 0).sum()),
            unreached=int(found.unreached.sum()),
            dropped=int(found.dropped.sum()),
            candidates=found.candidates,
        )
        self.removed.update(found.removed)
        for name in map(str, np.unique(sources)):
            of_source = sources == name
            self.negatives[name] += int(of_source.sum())
            self.queries[name] += len(np.unique(owners[of_source]))
        for name, scores in found.positive_scores.items():
            positives, negatives = self.scores.setdefault(name, ([], []))
            positives.append(scores[kept[examples.positives.owners]])
            negatives.append(found.scores[counted][sources == name])

    def facts(self) -> dict[str, Any]:
        """Return the counts as JSON values.

        `by_source` has the `negatives` and `queries` of each source. `removed` has the number of candidates that each
        filter removed, out of `candidates`. `scores` has, by source, the `edges` of bins and how many `positives` and
        `negatives` are in each bin. `scored_by` names the source that scored the positives, or is None.
        """
        drawn = {name: histogram(*map(np.concatenate, parts)) for name, parts in self.scores.items()}
        first = next(iter(self.scores))
        return {
            **self.counts,
            "by_source": {
                name: {"negatives": count, "queries": self.queries[name]} for name, count in self.negatives.items()
            },
            "removed": dict(self.removed),
            "scores": {name: found for name, found in drawn.items() if found},
            "scored_by": first if any(np.isfinite(one).any() for one in self.scores[first][0]) else None,
        }


def histogram(positives: np.ndarray, negatives: np.ndarray) -> Mapping[str, list[float]] | None:
    """Return histograms of both kinds of scores over common bins; None if one kind has no scores."""
    positives, negatives = (one[np.isfinite(one)].astype(np.float64) for one in (positives, negatives))
    if not len(positives) or not len(negatives):
        return None
    both = np.concatenate([positives, negatives])
    edges = np.histogram_bin_edges(both, BINS)
    return {
        "edges": edges.tolist(),
        "positives": np.histogram(positives, edges)[0].tolist(),
        "negatives": np.histogram(negatives, edges)[0].tolist(),
    }
