"""What mining counts, by hand."""

from __future__ import annotations

import math

import numpy as np

from embfit.miner.examples import TrainingQueries
from embfit.miner.mining_counts import MiningCounts, histogram
from embfit.miner.selection import Negatives
from embfit.ragged import Ragged


def test_blocks_are_counted_by_source_without_what_is_dropped() -> None:
    examples = TrainingQueries(np.arange(3), *(Ragged(np.array([0, 1, 2]), np.arange(4)) for _ in range(3)))
    found = Negatives(
        rows=Ragged(np.array([7, 8, 9, 8]), np.array([0, 3, 3, 4])),
        scores=np.array([math.nan, 0.5, 0.25, 0.5], np.float32),
        ranks=np.array([0, 1, 2, 1]),
        sources=np.array(["judged", "dense", "dense", "dense"]),
        positive_scores={"dense": np.array([1.0, 0.75, 0.5], np.float32)},
        candidates=30,
        removed={"positive": 2, "skip": 0},
        judged_unused=5,
        unreached=np.array([False, True, True]),
        dropped=np.array([False, False, True]),
    )
    counts = MiningCounts(wanted=3)
    counts.add(examples, found)
    counts.add(examples, found)
    facts = counts.facts()
    scores = facts.pop("scores")["dense"]
    assert facts == {
        "mined": 4,
        "judged": 2,
        "judged_unused": 10,
        "short": 2,
        "without": 2,
        "unreached": 4,
        "dropped": 2,
        "candidates": 60,
        "by_source": {"dense": {"negatives": 4, "queries": 2}, "judged": {"negatives": 2, "queries": 2}},
        "removed": {"positive": 4, "skip": 0},
        "scored_by": "dense",
    }
    assert (sum(scores["positives"]), sum(scores["negatives"])) == (4, 4)
    assert (scores["edges"][0], scores["edges"][-1]) == (0.25, 1.0)


def test_histograms_by_hand() -> None:
    drawn = histogram(np.array([0.0, 40.0, math.nan]), np.array([0.5, 39.5, 20.5]))
    assert drawn is not None
    assert drawn["edges"] == list(range(41))
    assert drawn["positives"] == [1] + [0] * 38 + [1]
    assert [bin for bin, count in enumerate(drawn["negatives"]) if count] == [0, 20, 39]
    assert histogram(np.array([math.nan]), np.array([1.0])) is None
    close = histogram(
        np.array([1.0 - 2**-24], np.float32), np.array([1.0], np.float32)
    )  # next to each other in float32
    assert close is not None
    assert (close["positives"], close["negatives"]) == ([1] + [0] * 39, [0] * 39 + [1])
    assert histogram(np.array([1.0]), np.array([])) is None
