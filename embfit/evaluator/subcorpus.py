"""A part of a corpus that is quick to search: the judged documents, and a sample of the others."""

from __future__ import annotations

import numpy as np

from embfit.evaluator.judging import judgements
from embfit.records import Collection

SEED = 0  # not the run's: runs that differ in their seed are measured on the same documents


def subcorpus(collection: Collection, split: str, most: int | None) -> np.ndarray:
    """Return document rows, ascending: all judged ones, and a sample of the others up to `most` in total.

    None for `most` returns every row.

    Raises:
        UserError: there is no such split, or none of its queries has a relevant document.
    """
    grades = judgements(collection, split).values()
    judged = {collection.document_rows[document] for documents in grades for document in documents}
    shuffled = np.random.default_rng(SEED).permutation(len(collection.corpus))
    others = shuffled[~np.isin(shuffled, list(judged))]
    if most is not None:
        others = others[: max(0, most - len(judged))]
    return np.sort(np.concatenate([np.array(sorted(judged), np.int64), others]))
