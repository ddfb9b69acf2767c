"""First results that nobody has judged, pooled over a run's systems as TREC does (Voorhees and Harman 2005).

A card does not say which system found its document, so that no system is favoured. The cards of a query stand together:
a person reads it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embfit.data.trec import read_run
from embfit.errors import UserError
from embfit.evaluator.judging import judged_by
from embfit.records import Collection, Qrels, Ranking
from embfit.review.run_data import RunData
from embfit.suggestions import nearest

RANKINGS = "rankings"


@dataclass(frozen=True)
class JudgementPool:
    """The first results of a run that may be judged.

    Args:
        split: the split that its queries are of.
        collection: has their texts and the documents.
        judged: what is judged already, queries without a relevant document among them.
        found: query id → documents among its first results, in no system's order.
        systems: the files that were pooled.
    """

    split: str
    collection: Collection
    judged: Qrels
    found: Mapping[str, Sequence[str]]
    systems: Sequence[str]

    @property
    def unjudged(self) -> dict[str, list[str]]:
        """The documents that nobody has judged, by query; queries without any are left out."""
        left = {
            query: [document for document in documents if document not in self.judged.get(query, {})]
            for query, documents in self.found.items()
        }
        return {query: documents for query, documents in left.items() if documents}

    def draw(self, cards: int, seed: int) -> list[tuple[str, str]]:
        """Draw queries, and return the ids of query and unjudged document of each card, in the order of the page.

        Queries are drawn whole, since a query counts only once its first results are judged: as many as have at most
        `cards` documents together, and one at least.

        Args:
            cards: how many there are, at most.
            seed: shuffles queries, and the documents of each.
        """
        unjudged, drawn = self.unjudged, list[tuple[str, str]]()
        for query in sorted(unjudged, key=lambda query: _drawn(seed, query)):
            if drawn and len(drawn) + len(unjudged[query]) > cards:
                break
            documents = sorted(unjudged[query], key=lambda document: _drawn(seed, query, document))
            drawn += [(query, document) for document in documents]
        return drawn


def pool_results(run: RunData, split: str | None, depth: int, systems: Sequence[str] | None) -> JudgementPool:
    """Pool the first results of a run's systems.

    Args:
        run: has `rankings/SYSTEM.trec`.
        split: whose queries; None is the evaluator's.
        depth: the number of results of each system and query that are pooled.
        systems: names of the files that are pooled; None is all.

    Raises:
        UserError: the run has no rankings or no such system, or the split is not one of its data.
    """
    folder = run.folder / RANKINGS
    files = {file.stem: file for file in sorted(folder.glob("*.trec"), key=lambda file: file.stem)}
    if not files:
        raise UserError(f"{folder} has no SYSTEM.trec, so there are no results to judge; name a run that measured some")
    for name in systems or ():
        if name not in files:
            meant = nearest(name, files)
            raise UserError(f"{folder} has no {name}.trec; {f'did you mean {meant}? ' if meant else ''}{_named(files)}")
    chosen = {name: file for name, file in files.items() if systems is None or name in systems}
    split = split or str(run.values["evaluator"]["split"])
    collection, judged = _judged(run, split)
    found: dict[str, dict[str, None]] = {}
    for file in chosen.values():
        for query, documents in _first(read_run(file), depth).items():
            if query in judged:
                found.setdefault(query, {}).update(dict.fromkeys(documents))
    if not found:
        raise UserError(f"{folder} ranks no query of split {split!r}; {_named(files)}, and --split names another split")
    known = collection.document_rows
    pooled = {query: sorted(name for name in documents if name in known) for query, documents in found.items()}
    return JudgementPool(split, collection, judged, pooled, list(chosen))


def _judged(run: RunData, split: str) -> tuple[Collection, Qrels]:
    """Return the data with the judgements that the run was measured by, and those of the split."""
    collection = run.collection
    given = run.values["task"].get("qrels")
    if given and split == run.values["evaluator"]["split"]:
        collection = judged_by(collection, split, Path(given))
    if split in collection.qrels:
        return collection, collection.qrels[split]
    there = f"its splits: {', '.join(sorted(collection.qrels)) or 'none'}"
    if (run.folder / RANKINGS / f"{split}.qrels").is_file():
        raise UserError(
            f"the queries of split {split!r} were generated in the run and are not of {collection.name} ({there}); "
            "judge what people ask: real queries as a split of the data, measured by task=evaluate"
        )
    raise UserError(f"{collection.name} has no split {split!r}; {there}")


def _first(ranking: Ranking, depth: int) -> Mapping[str, Sequence[str]]:
    return {query: [name for name, _ in documents[:depth]] for query, documents in ranking.documents.items()}


def _named(files: Mapping[str, Path]) -> str:
    return f"it has {', '.join(files)}"


def _drawn(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
