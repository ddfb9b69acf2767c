"""A cross-encoder that scores training pairs, cross-fitted where it can be: no query by a model trained on it.

A ranker's folder may hold rankers of folds (`folds/0`, `folds/1`, …), each trained on all queries but its fold's, and
`folds/folds.json`, which says by the digest of its text which fold a query is in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embfit.errors import UserError
from embfit.model.cross_encoder import CrossEncoder
from embfit.model.precision import Precision
from embfit.model.scoring import score_pairs
from embfit.model.source import find_model
from embfit.records import Collection
from embfit.store import Store, digest

FOLDS = "folds"
ASSIGNMENT = "folds.json"
WHOLE = -1  # "fold" of a query that no fold was trained on: the whole ranker may score it


@dataclass(frozen=True)
class Teacher:
    """Scores pairs of a collection.

    Args:
        whole: scores the queries that are in no fold.
        folds: fold i scores the queries of fold i, on which it was not trained.
        fold_of: digest of a query's text → its fold.
    """

    whole: CrossEncoder
    folds: Sequence[CrossEncoder] = ()
    fold_of: Mapping[str, int] | None = None

    @property
    def fingerprint(self) -> str:
        """Identifies everything that a score depends on besides the two texts."""
        parts = [ranker.fingerprint for ranker in (self.whole, *self.folds)]
        return digest({"rankers": parts, "folds": dict(self.fold_of or {})})

    def score(self, collection: Collection, rows: np.ndarray, store: Store) -> np.ndarray:
        """Return the scores ([P] float32) of pairs, each by a ranker that was not trained on its query.

        Args:
            collection: has the texts.
            rows: [P, 2], a query row and a document row each.
            store: keeps the scores.
        """
        rows = np.asarray(rows, np.int64).reshape(-1, 2)
        queries, where = np.unique(rows[:, 0], return_inverse=True)
        fold_of = self.fold_of or {}
        found = [fold_of.get(text_digest(text), WHOLE) for text in collection.query_texts(queries.tolist())]
        folds = np.array(found, np.int64)[where.reshape(-1)] if found else np.zeros(0, np.int64)  # [P]
        scores = np.empty(len(rows), np.float32)
        for fold in np.unique(folds):
            ranker = self.whole if fold == WHOLE else self.folds[fold]
            label = "scoring pairs" if fold == WHOLE else f"scoring pairs of fold {fold}"
            scores[folds == fold] = score_pairs(ranker, collection, rows[folds == fold], store, label)
        return scores


def load_teacher(
    path: str, max_length: int | None = None, precision: Precision = "auto", device: str = "auto"
) -> Teacher:
    """Load a ranker with the rankers of its folds, if it has them; arguments as `CrossEncoder.load`.

    Raises:
        UserError: a ranker cannot be read, or the folds are not what their assignment says.
    """
    whole = CrossEncoder.load(path, max_length, precision, device)
    folder = find_model(path) / FOLDS
    if not (folder / ASSIGNMENT).is_file():
        return Teacher(whole)
    try:
        said = json.loads((folder / ASSIGNMENT).read_text(encoding="utf-8"))
        count, fold_of = int(said["folds"]), {str(name): int(fold) for name, fold in said["queries"].items()}
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / ASSIGNMENT}: cannot be read ({error}); train the folds again") from error
    if not all(0 <= fold < count for fold in fold_of.values()):
        raise UserError(f"{folder / ASSIGNMENT}: names a fold beyond its {count} folds; train the folds again")
    rankers = [CrossEncoder.load(folder / str(fold), max_length, precision, device) for fold in range(count)]
    return Teacher(whole, rankers, fold_of)


def text_digest(text: str) -> str:
    """Identify a query by its text: rows and ids differ between collections that share it."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
