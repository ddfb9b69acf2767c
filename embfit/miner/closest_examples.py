"""Examples to read: the queries whose negatives come closest to a positive, where a wrong setting shows first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from embfit.miner.negatives_file import readable
from embfit.records import TrainingSet

CHARACTERS = 400  # of a text that are shown


def closest_examples(training_set: TrainingSet, count: int) -> list[dict[str, Any]]:
    """Return the examples with the smallest difference between the lowest positive and the highest negative score.

    Only scores of the source that scored the positives are compared. If there are none, the first examples are
    returned.

    Args:
        training_set: the mined examples.
        count: examples to return at most.
    """
    order = np.argsort(_gaps(training_set), kind="stable")[:count]  # NaN, of those without scores, comes last
    some = replace(training_set, rows=training_set.rows.select(order.tolist()))
    examples = list(readable(some))
    for example in examples:
        for text in (example["query"], *example["positives"], *example["negatives"]):
            if len(text["text"]) > CHARACTERS:
                text["text"] = text["text"][:CHARACTERS] + "…"
    return examples


def _gaps(training_set: TrainingSet) -> np.ndarray:
    """Return each example's lowest positive score minus its highest negative score ([N]); NaN if one is missing."""
    columns = training_set.rows.select_columns(["positive_scores", "negative_scores", "negative_sources"])[:]
    gaps = np.full(len(training_set), np.nan)
    first = training_set.facts["scored_by"]
    for row, (positives, negatives, names) in enumerate(zip(*columns.values(), strict=True)):
        known = [score for score in positives if score is not None]
        scored = [score for score, name in zip(negatives, names, strict=True) if score is not None and name == first]
        if known and scored:
            gaps[row] = min(known) - max(scored)
    return gaps
