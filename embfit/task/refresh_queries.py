"""Chooses the queries of a training report on which champion and new model can be compared fairly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from embfit.bundle.gates import METRIC, SameQueries
from embfit.evaluator.metrics import answerable
from embfit.records import Collection, Report
from embfit.text_digests import normalise

WRITTEN = "queries*.parquet"  # in a run folder: all generated queries with their documents


@dataclass(frozen=True)
class TrainedOn:
    """The record of a refresh's training about its queries.

    Args:
        documents: ids of the documents that were used for training or for choosing the weights.
        compared: the results of champion and new model; None if the gates' metric was not measured.
    """

    documents: frozenset[str]
    compared: SameQueries | None

    @classmethod
    def of(
        cls, report: Report, run: Path, collection: Collection, champion: int | None, seen: AbstractSet[str]
    ) -> TrainedOn:
        """Read the record from a training's report and its folder.

        Args:
            report: the results of the model before training (`base`) and after it (`tuned`).
            run: the run folder, which holds the generated queries.
            collection: the data without the generated queries.
            champion: the number of the version whose model was trained further; None if there is no version.
            seen: ids of the documents that the earlier model was trained on.
        """
        written: dict[str, set[str]] = defaultdict(set)  # a query's text → the documents that it was written about
        texts: dict[str, str] = {}
        for name, text, document in _generated(run):
            texts[name] = normalise(text)
            written[texts[name]].add(document)
        values = {one.system: one for one in report.evaluations}
        before, after = (values[name].per_query.get(METRIC) if name in values else None for name in ("base", "tuned"))
        about = {name: written[texts[name]] for name in after or () if name in texts}
        held_out = {document for documents in about.values() for document in documents}
        judged = answerable(collection.qrels.get("train", {}))
        trained = {name for grades in judged.values() for name in grades}
        trained.update(*written.values())
        compared = None
        if before is not None and after is not None:
            unfair = {name for name, documents in about.items() if documents & seen}
            kept = [name for name in after if name not in unfair]
            compared = SameQueries(
                champion,
                {name: before[name] for name in kept},
                {name: after[name] for name in kept},
                len(unfair),
            )
        return cls(frozenset(trained - held_out), compared)


def _generated(run: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the id, the text and the document of each kept query of a run."""
    import pyarrow.parquet as pq

    for path in sorted(run.glob(WRITTEN)):
        table = pq.read_table(path, columns=["_id", "text", "document_id", "dropped_by"]).to_pydict()
        for name, text, document, dropped in zip(*table.values(), strict=True):
            if dropped is None:
                yield name, text, document
