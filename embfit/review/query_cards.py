"""Generated queries that a person reviews: half of those that filters keep, half of those that they nearly keep."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from embfit.data.beir import Beir
from embfit.data.files import Parquet
from embfit.errors import UserError
from embfit.generator.dataset import HELD_OUT, QUERIES
from embfit.records import Collection
from embfit.review.run_data import read_run_data
from embfit.store import Store

CERTAIN = ("leak", "duplicate")  # marks that leave nothing to judge: the query is there already
BEYOND = 1_000  # the rank of a document that was not found


@dataclass(frozen=True)
class ReviewedTable:
    """The generated queries of a run.

    Args:
        rows: one for each query, with the columns of `queries.parquet` and `held_out`: whether another generator wrote
            it to evaluate.
        collection: has their documents.
        store: keeps what is detected in the collection, such as its language.
        lost: how many queries are not among `rows`, since their document is gone or has changed.
    """

    rows: Sequence[Mapping[str, Any]]
    collection: Collection
    store: Store
    lost: int = 0


def read_generated(folder: Path) -> ReviewedTable:
    """Read the generated queries of a run, or of a data set that `task=generate` has made.

    Args:
        folder: of the run; or its `dataset`, or a copy of that alone, which has the queries that filters keep.

    Raises:
        UserError: there are none, or the data cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name that of a run of task=generate, or its data set")
    if (folder / "corpus.jsonl").is_file():
        if not (folder.parent / QUERIES).is_file():
            return _of_dataset(folder)
        folder = folder.parent
    if not (folder / QUERIES).is_file():
        raise UserError(
            f"{folder} has no {QUERIES}, so the run has generated no queries; name a run of task=generate, or of a "
            "fine-tuning with a generator"
        )
    found = read_run_data(folder)
    first: dict[str, Mapping[str, Any]] = {}
    lost = set()
    digests, places = found.collection.document_digests["content"], found.collection.document_rows
    for name in (QUERIES, HELD_OUT):
        for _, row in Parquet(folder / name) if (folder / name).is_file() else ():
            place = places.get(row["document_id"])
            if place is None or digests[place].as_py().hex() != row["document_digest"]:
                lost.add(row["_id"])
            else:
                first.setdefault(row["_id"], {**row, "held_out": name == HELD_OUT})
    return ReviewedTable(list(first.values()), found.collection, found.store, len(lost - first.keys()))


def _of_dataset(folder: Path) -> ReviewedTable:
    store = Store(enabled=False)
    collection = Beir(path=str(folder), dev_share=0, test_share=0).load(store)
    judged = collection.qrels.get("train", {})
    rows = [
        {"_id": query, "text": text, "style": style or None, "document_id": next(iter(judged[query]))}
        for query, text, style in zip(
            collection.query_ids,
            collection.query_texts(),
            collection.query_sources or [""] * len(collection.queries),
            strict=True,
        )
        if judged.get(query)
    ]
    if not rows:
        raise UserError(f"{folder} has no training queries to review; name a data set that task=generate has made")
    return ReviewedTable(rows, collection, store)


def choose_rows(rows: Sequence[Mapping[str, Any]], count: int, seed: int) -> list[Mapping[str, Any]]:
    """Draw queries for review, in the order of the page.

    Half are a random sample of those that are kept. The others are dropped ones, by turns of each filter, those nearest
    to its limit first. Where one half is short, the other fills up. A larger count has the cards of a smaller one.

    Args:
        rows: with the columns of `queries.parquet`; those that a person has decided already are not drawn.
        count: how many are drawn, at most.
        seed: draws and shuffles them.
    """
    by_mark: dict[str | None, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: _drawn(seed, row)):
        if not row.get("review") and row.get("dropped_by") not in CERTAIN:
            by_mark.setdefault(row.get("dropped_by"), []).append(row)
    kept = by_mark.pop(None, [])
    turns = zip_longest(*(sorted(by_mark[mark], key=_beyond_the_limit) for mark in sorted(map(str, by_mark))))
    dropped = [row for turn in turns for row in turn if row is not None]
    half = min(len(dropped), max(count // 2, count - len(kept)))
    chosen = [*kept[: count - half], *dropped[:half]]
    return sorted(chosen, key=lambda row: _drawn(seed + 1, row))


def _beyond_the_limit(row: Mapping[str, Any]) -> float:
    """Return how far a query is beyond the limit of the filter that drops it; 0 where no column tells."""
    if row["dropped_by"] == "round_trip":
        return float(min((rank or BEYOND for name, rank in row.items() if name.startswith("rank_")), default=BEYOND))
    if row["dropped_by"] == "cross_encoder":
        return float(row.get("rank_cross_encoder") or BEYOND)
    if row["dropped_by"] == "judge":
        return -float(row.get("grade") or 0)
    if row["dropped_by"] == "improbable":
        return -float(row.get("log_probability") or 0.0)
    return float(row.get("copied_words") or 0) if row["dropped_by"] == "copy" else 0.0


def _drawn(seed: int, row: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(f"{seed} {row['_id']}".encode()).digest()
