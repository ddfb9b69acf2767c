"""Folds of a training set, so that a model can score queries that it was not trained on."""

from __future__ import annotations

import logging

import numpy as np

from embfit.data.held_out import cut_folds
from embfit.errors import UserError
from embfit.records import TrainingSet

log = logging.getLogger(__name__)

LARGEST_FOLD = 1.5  # times its share of the queries; a larger fold is reported


def folds_of(training_set: TrainingSet, count: int, seed: int) -> np.ndarray:
    """Return the fold of each example ([N]); queries with a common document are in one fold. Warn if one fold is large.

    Documents with the same text count as one. No fold is empty: fewer groups of queries give fewer folds.

    Raises:
        UserError: all queries are in one group, so none can be left out without the others.
    """
    rows, copies = training_set.rows, training_set.collection.document_copies
    queries = list(map(str, rows["query"][:]))
    positives = (copies[documents].tolist() for documents in rows["positives"][:])
    fold_of = cut_folds(dict(zip(queries, positives, strict=True)), count, seed)
    folds = np.array([fold_of[query] for query in queries])
    largest = int(np.bincount(folds).max())
    if largest == len(folds):
        raise UserError(
            f"training.folds={count}: all {len(folds)} queries are connected through documents that are relevant to "
            "several of them, so none can be left out of a training; set training.folds=null"
        )
    if largest > LARGEST_FOLD * len(folds) / count:
        log.warning(
            "%d of %d queries are connected through their documents and are one of %d folds: the cross-encoder that "
            "scores them is trained only on the other %d",
            largest,
            len(folds),
            count,
            len(folds) - largest,
        )
    return folds
