"""A cross-encoder that scores training pairs; with models of folds, no query is scored by a model trained on it.

A ranker's folder may hold rankers of folds (`folds/0`, `folds/1`, …), each trained on all queries but its fold's, and
`folds/folds.json`, which says which fold a query is in, by the digest of its text without the differences that make no
other query (`normalise`). The assignment is written first: a folder without all of its rankers is not finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from embfit.atomic_files import write_text
from embfit.errors import ConfigError, UserError
from embfit.model.auto_encoder import encoder_at
from embfit.model.cross_encoder import CrossEncoder
from embfit.model.encoder_teacher import EncoderTeacher
from embfit.model.folder import has_classification_head
from embfit.model.late_interaction_folder import holds_late_interaction
from embfit.model.location import find_model
from embfit.model.precision import Precision
from embfit.model.pretrained import Pretrained
from embfit.model.scoring import score_pairs
from embfit.records import Collection
from embfit.store import Store, digest
from embfit.text_digests import digest_text, normalise

FOLDS = "folds"
ASSIGNMENT = "folds.json"
VERSION = 2  # version of the assignment's format
WHOLE = -1  # the "fold" of a query outside the folds, which the main ranker scores


@dataclass(frozen=True)
class Teacher:
    """Scores pairs of a collection.

    Args:
        whole: the main cross-encoder, which scores the queries outside the folds.
        folds: the cross-encoder of each fold, which scores the queries of that fold, on which it was not trained.
        fold_of: maps the digest of a query's text to its fold.
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
            collection: the collection that has the texts.
            rows: [P, 2], a query row and a document row each.
            store: the store that keeps the scores.
        """
        rows = np.asarray(rows, np.int64).reshape(-1, 2)
        queries, where = np.unique(rows[:, 0], return_inverse=True)
        fold_of = self.fold_of or {}
        found = [fold_of.get(_name(text), WHOLE) for text in collection.query_texts(queries.tolist())]
        folds = np.array(found, np.int64)[where.reshape(-1)] if found else np.zeros(0, np.int64)  # [P]
        scores = np.empty(len(rows), np.float32)
        for fold in np.unique(folds):
            ranker = self.whole if fold == WHOLE else self.folds[fold]
            label = "scoring pairs" if fold == WHOLE else f"scoring pairs of fold {fold}"
            scores[folds == fold] = score_pairs(ranker, collection, rows[folds == fold], store, label)
        return scores


def load_teacher(
    path: str,
    max_length: int | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Teacher | EncoderTeacher:
    """Load an encoder, or a ranker with the rankers of its folds, if it has them; arguments as `CrossEncoder.load`.

    Raises:
        UserError: the model cannot be read, or the folds are not, or not all, what their assignment says.
        ConfigError: a length of pairs is set for an encoder, which reads each text separately.
    """
    folder = find_model(path, revision)
    if holds_late_interaction(folder) or ((folder / "modules.json").is_file() and not has_classification_head(folder)):
        if max_length is not None:
            raise ConfigError(
                f"miner.max_length={max_length} is of a query and a document together, and {path} reads each alone; "
                "set miner.max_length=null"
            )
        like = Pretrained(path, precision=precision, trust_remote_code=trust_remote_code)
        return EncoderTeacher(encoder_at(path, like, revision).load(device))
    load = partial(
        CrossEncoder.load,
        max_length=max_length,
        precision=precision,
        device=device,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    whole = load(path)
    folder = folder / FOLDS
    if not folder.is_dir():
        return Teacher(whole)
    try:
        said = json.loads((folder / ASSIGNMENT).read_text(encoding="utf-8"))
        version, count = int(said["version"]), int(said["folds"])
        fold_of = {str(name): int(fold) for name, fold in said["queries"].items()}
    except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / ASSIGNMENT}: cannot be read ({error}); train the folds again") from error
    if version != VERSION:
        raise UserError(
            f"{folder / ASSIGNMENT}: is of version {version}, and this embfit reads {VERSION}; train the folds again"
        )
    if not all(0 <= fold < count for fold in fold_of.values()):
        raise UserError(f"{folder / ASSIGNMENT}: names a fold beyond its {count} folds; train the folds again")
    missing = [str(fold) for fold in range(count) if not (folder / str(fold)).is_dir()]
    if missing:
        raise UserError(
            f"{folder}: the rankers of folds {', '.join(missing)} are not there, and the others were trained on their "
            "queries; resume the training (resume=RUN_DIR), or remove the folder to do without folds"
        )
    return Teacher(whole, [load(folder / str(fold)) for fold in range(count)], fold_of)


def write_assignment(folder: Path, texts: Iterable[str], folds: Iterable[int], count: int) -> None:
    """Write the fold of each query.

    Args:
        folder: the folder of the folds.
        texts: the queries' texts.
        folds: the fold of each query.
        count: the number of folds.
    """
    queries = {_name(text): int(fold) for text, fold in zip(texts, folds, strict=True)}
    folder.mkdir(exist_ok=True)
    said = {"version": VERSION, "folds": count, "queries": queries}
    write_text(folder / ASSIGNMENT, json.dumps(said, indent=0) + "\n")


def _name(text: str) -> str:
    """Identify a query by its text, because rows and ids differ between collections."""
    return digest_text(normalise(text)).hex()
