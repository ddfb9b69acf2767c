"""What all sources of collections have in common: how their splits are made, cleaned and counted."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from embfit.data.held_out import hold_out, hold_out_seen, sample
from embfit.data.judged_texts import document_contents, query_texts
from embfit.data.judgements import (
    merge_queries,
    relevant,
    remove_leaks,
    seen_queries,
    split_sizes,
    without_self,
)
from embfit.data.loading_summary import loading_summary, refuse_empty_training
from embfit.data.tables import Tables, open_collection, write_judgements
from embfit.errors import ConfigError, UserError
from embfit.records import Collection, Qrels, Seed
from embfit.store import Store

log = logging.getLogger(__name__)

Found = TypeVar("Found")

SPLITS_VERSION = 4  # of the splits in the store
DEV_NAMES = ("validation", "valid", "val")  # other names for the dev split

Share = Annotated[float, Field(ge=0, lt=1)]
SeenShare = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class CollectionSource(ABC):
    """Where a collection comes from.

    Args:
        dev_share: share of the training queries to hold out as `dev` if the data has no such split; 0 holds out none.
        dev_seen_share: share of a held-out `dev` whose documents training sees with other queries; the rest of `dev`
            asks for documents that training never sees. Fewer where the data have fewer such queries.
        test_share: share of the training queries to hold out as `test` if the data has no such split; 0 holds out none.
        split_seed: seeds the choice of held-out queries. It differs from the run's seed, so that runs with different
            seeds are evaluated on the same queries.
        max_train: training queries at most, drawn with `split_seed`; None uses all.
        exclude_self: says that queries are documents of the corpus under the same id (arguana, quora). A query's own
            document is then neither measured nor used as a negative. Elsewhere equal ids are a coincidence.
        queries_from: split → who or what wrote its queries ("users", a generator's name). embfit warns when the
            reported queries were written by the source of the training queries.
    """

    dev_share: Share = 0.1
    dev_seen_share: SeenShare = 0.5
    test_share: Share = 0.1
    split_seed: Seed = 0
    max_train: Annotated[int, Field(ge=1)] | None = None
    exclude_self: bool = False
    queries_from: dict[str, str] | None = None

    @abstractmethod
    def read(self, store: Store) -> Tables:
        """Return the source's content as tables, with the source's own splits.

        Raises:
            UserError: the source is missing, malformed or empty.
            ConfigError: the configuration does not name the source.
        """

    def unit(self, document: str) -> Hashable:
        """Return the group of a document, which no two splits may share; by default the document itself."""
        return document

    def load(self, store: Store) -> Collection:
        """Return the collection ready for use: equal queries merged, leaks removed, missing splits held out.

        Raises:
            UserError: the source is missing, malformed or empty.
            ConfigError: the configuration does not name the source, or the shares leave nothing to train on.
        """
        if self.dev_share + self.test_share >= 1:
            raise ConfigError(
                f"data.dev_share={self.dev_share} and data.test_share={self.test_share} leave nothing to train on; "
                "together they must be less than 1"
            )
        tables = self.read(store)
        key = {
            "tables": tables.folder.name,  # a digest of everything that the tables were made from
            "dev_share": self.dev_share,
            "dev_seen_share": self.dev_seen_share,
            "test_share": self.test_share,
            "split_seed": self.split_seed,
            "max_train": self.max_train,
            "exclude_self": self.exclude_self,
        }
        splits = store.entry("splits", key, lambda folder: self._split(tables, folder), version=SPLITS_VERSION)
        collection = replace(open_collection(tables.name, tables.folder, splits), exclude_self=self.exclude_self)
        if self.queries_from:
            sources = {**collection.facts.get("queries_from", {}), **self.queries_from}
            collection = replace(collection, facts={**collection.facts, "queries_from": sources})
        for line in loading_summary(collection, tables.splits):
            log.log(logging.WARNING if line.warns else logging.INFO, "%s", line.text)
        return collection

    def _split(self, tables: Tables, folder: Path) -> None:
        raw = open_collection(tables.name, tables.folder, tables.folder)
        texts, contents = query_texts(raw), document_contents(raw)
        qrels, merged = merge_queries(raw.qrels, texts)
        if self.exclude_self:
            qrels = without_self(qrels)
        training_queries = len(qrels.get("train", ()))
        qrels, leaks = remove_leaks(qrels, texts, contents)
        refuse_empty_training(training_queries, leaks, tables.splits)
        held_out: dict[str, Qrels] = {}
        too_few: list[str] = []
        left_out = 0
        if "train" in qrels:
            qrels["train"], held_out = self._hold_out(qrels, contents)
            too_few = [split for split, judged in held_out.items() if not judged]
            if self.max_train is not None:
                left_out = max(0, len(qrels["train"]) - self.max_train)
                qrels["train"] = sample(qrels["train"], self.max_train, self.split_seed)
        held_out = {split: judged for split, judged in held_out.items() if judged}
        qrels = _in_order({**qrels, **held_out})
        facts = {
            **_sizes(replace(raw, qrels=qrels)),
            "held_out": ", ".join(held_out),
            "not_held_out": ", ".join(too_few),
            "train_queries_left_out": left_out,
            "queries_merged": merged,
            **leaks,
            **({"training_queries_before_removal": training_queries} if leaks["leaked_queries_removed"] else {}),
            **_seen_in_train(qrels, contents),
            **raw.facts,
        }
        write_judgements(folder, qrels, facts)

    def _hold_out(self, qrels: Mapping[str, Qrels], contents: Mapping[str, bytes]) -> tuple[Qrels, dict[str, Qrels]]:
        """Return what stays in training, and the missing splits, which are empty if no query could be held out."""
        documents: dict[str, set[Hashable]] = {}
        bonds: dict[str, set[Hashable]] = {}
        for query, grades in qrels["train"].items():
            gold = relevant(grades)
            if gold:  # nothing can be evaluated by a query with nothing to find
                documents[query] = {contents[document] for document in gold}
                bonds[query] = {("content", content) for content in documents[query]}
                bonds[query].update(("unit", self.unit(document)) for document in gold)
        shares = {"test": self.test_share, "dev": self.dev_share}
        missing = {split: share for split, share in shares.items() if share and split not in qrels}
        cut = hold_out(
            qrels["train"], bonds, {split: missing[split] for split in missing if split != "dev"}, self.split_seed
        )
        if "dev" in missing:
            left = [query for query in cut["train"] if query in bonds]
            room = round(self.dev_share * len(bonds))
            seen = hold_out_seen(
                {query: documents[query] for query in left}, round(room * self.dev_seen_share), self.split_seed
            )
            share = (room - len(seen)) / max(1, len(left))
            rest = {query: bonds[query] for query in left}
            cut |= hold_out(cut["train"], rest, {"dev": share}, self.split_seed, staying=seen)
            for query in seen:
                cut["dev"][query] = cut["train"].pop(query)
        for split, share in missing.items():
            if len(cut[split]) < share * len(bonds) / 2:
                log.warning(
                    "only %d of %d queries could be held out as %s, fewer than data.%s_share=%g asks for: there are "
                    "too few queries, or they share documents with too many others",
                    len(cut[split]),
                    len(bonds),
                    split,
                    split,
                    share,
                )
        train = cut.pop("train")
        return train, {**cut}


def choose_splits(found: Mapping[str, Found], wanted: Sequence[str] | None, place: str) -> dict[str, Found]:
    """Return the wanted splits, or all of them; a split called `validation`, `valid` or `val` becomes `dev`.

    Raises:
        UserError: a wanted split does not exist; the message names those that do.
    """
    for split in wanted or ():
        if split not in found:
            raise UserError(f'{place} has no split "{split}"; it has {", ".join(found) or "no splits"}')
    chosen = {split: found[split] for split in wanted or found}
    other = next((name for name in DEV_NAMES if name in chosen), None)
    return {"dev" if split == other and "dev" not in chosen else split: value for split, value in chosen.items()}


def _in_order(qrels: Mapping[str, Qrels]) -> dict[str, Qrels]:
    """Put train, dev and test before all other splits."""
    known = [split for split in ("train", "dev", "test") if split in qrels]
    return {split: qrels[split] for split in [*known, *(split for split in qrels if split not in known)]}


def _sizes(collection: Collection) -> dict[str, int]:
    sizes = {"documents": len(collection.corpus), "queries": len(collection.queries)}
    for split, judged in collection.qrels.items():
        sizes |= split_sizes(split, judged)
    return sizes


def _seen_in_train(qrels: Mapping[str, Qrels], contents: Mapping[str, bytes]) -> dict[str, int]:
    train = qrels.get("train", {})
    return {
        f"{split}_queries_seen_in_train": seen_queries(train, judged, contents)
        for split, judged in qrels.items()
        if split != "train"
    }
