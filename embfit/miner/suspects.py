"""Examples to look at: the queries whose negatives come closest to a positive, where a wrong setting shows first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from embfit.miner.negatives_file import readable
from embfit.records import TrainingSet

CHARACTERS = 400  # shown of a text


def most_suspect(training_set: TrainingSet, count: int) -> list[dict[str, Any]]:
    """Return the examples of the smallest difference between lowest positive and highest negative score.

    Only scores of the source that scored the positives are compared. Without any, the first examples are returned.
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
    """Return the lowest positive score less the highest negative score ([N]), NaN where one is missing."""
    columns = training_set.rows.select_columns(["positive_scores", "negative_scores", "negative_sources"])[:]
    gaps = np.full(len(training_set), np.nan)
    first = training_set.facts["scored_by"]
    for row, (positives, negatives, names) in enumerate(zip(*columns.values(), strict=True)):
        known = [score for score in positives if score is not None]
        scored = [score for score, name in zip(negatives, names, strict=True) if score is not None and name == first]
        if known and scored:
            gaps[row] = min(known) - max(scored)
    return gaps
