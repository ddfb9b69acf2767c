"""The facts about the data in a report: counts, digests, and how many texts a model truncates."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from embfit.errors import UserError
from embfit.evaluator import Retrieval
from embfit.evaluator.judging import judgements
from embfit.evaluator.metrics import answerable
from embfit.evaluator.provenance import same_source
from embfit.index.language import detect_language
from embfit.miner.miner import Mines
from embfit.model import Encoder, Kind, tokenized
from embfit.model.languages import model_languages
from embfit.records import Collection
from embfit.store import Store

log = logging.getLogger(__name__)

PLURALS: dict[Kind, str] = {"document": "documents", "query": "queries"}


def describe(collection: Collection) -> dict[str, Any]:
    """Return a collection's name, its counts from loading, and the digests that identify it."""
    return {
        "name": collection.name,
        **collection.facts,
        "corpus_sha256": collection.corpus_digest,
        "queries_sha256": collection.queries_digest,
        "qrels_sha256": {split: collection.qrels_digest(split) for split in collection.qrels},
    }


def warn_of_sources(collection: Collection, splits: Iterable[str]) -> None:
    """Warn if an evaluated split's queries come from the same source as the training queries."""
    for split in splits:
        if message := same_source(collection, split):
            log.warning("%s", message)


def check_negatives(miner: Mines, collection: Collection) -> None:
    """Refuse to train on lists if none would have a negative, before anything is measured.

    Raises:
        UserError: the miner finds no negatives, and the training split judges none.
    """
    judged = (grade for grades in collection.qrels.get("train", {}).values() for grade in grades.values())
    if not getattr(miner, "finds_negatives", True) and not any(grade < 1 for grade in judged):
        raise UserError(
            f"{collection.name} has no training query with a negative, and miner=none finds none, so no list has an "
            "order to learn; set miner=dense, or miner=hybrid miner.miner.negatives=8 beside a teacher"
        )


def can_validate(collection: Collection, split: str) -> bool:
    """Return whether a split can choose the weights to keep; warn if it cannot.

    Raises:
        UserError: the split was named explicitly, but does not exist.
    """
    if split != Retrieval.dev_split:
        judgements(collection, split, "evaluator.dev_split")
    if answerable(collection.qrels.get(split, {})):
        return True
    log.warning(
        "%s has no split %r with a relevant document, so nothing is validated and the last weights are saved; name its "
        "splits with evaluator.dev_split, or hold one out of train (data.dev_share)",
        collection.name,
        split,
    )
    return False


def count_truncated(encoder: Encoder, collection: Collection, store: Store) -> dict[str, int]:
    """Return, for queries and documents, how many texts exceed the encoder's length, and log it."""
    counted = {}
    for kind, plural in PLURALS.items():
        truncated = tokenized(encoder, collection, kind, store).truncated
        counted[f"truncated_{plural}"] = found = int(truncated.sum())
        if found:
            log.info(
                "%s of %s %s are longer than %d tokens; the model reads their beginning (%s)",
                f"{found:,}",
                f"{len(truncated):,}",
                plural,
                encoder.length(kind),
                encoder.length_setting(kind),
            )
    return counted


def warn_of_language(encoder: Encoder, collection: Collection, store: Store) -> None:
    """Warn if the documents' language is not among those that the model's card names."""
    made_for = model_languages(Path(encoder.source))
    if made_for is None:
        return
    found = detect_language(collection, store)
    if found.is_clear and found.code not in made_for:
        log.warning(
            "%s is made for %s, as its README.md says, and %.0f%% of the documents are in another language (%s); "
            "choose a model for it, such as experiment=multilingual",
            encoder.source,
            ", ".join(sorted(made_for)),
            100 * found.share,
            found.code,
        )
