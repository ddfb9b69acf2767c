"""A ranking that another tool made, as a system."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embfit.errors import ConfigError, UserError
from embfit.evaluator.metrics import rank
from embfit.evaluator.systems.bench import Bench
from embfit.evaluator.trec import check_unknown, read_run
from embfit.records import Evaluation


@dataclass(frozen=True)
class TrecFile:
    """A TREC run file: what any other search engine, or an earlier run's `rankings/`, found.

    Args:
        path: the file.
    """

    path: str | None = None

    def evaluate(self, name: str, bench: Bench) -> Evaluation:
        """Read the file, cut it at the evaluator's depth and measure; queries that it lacks count as 0.

        Raises:
            UserError: documents of the file are not in the collection, or none of its queries is in the split.
        """
        if self.path is None:
            raise ConfigError(f"evaluator.systems.{name}.path is not set; give a TREC run file")
        path, collection = Path(self.path), bench.collection
        asked = {collection.query_ids[row] for row in bench.rows}
        found = read_run(path).documents
        known = collection.document_rows
        answers, unknown = {}, {}
        for query in (one for one in found if one in asked):
            answers[query] = [document for document in found[query] if document[0] in known]
            unknown.update({name: f"{path}: query {query!r}" for name, _ in found[query] if name not in known})
        check_unknown(path, unknown, collection)
        ranking = rank(answers, bench.evaluator.depth, collection.exclude_self)
        ranked = ranking.documents
        if not ranked:
            raise UserError(
                f"{path}: none of its {len(found)} queries is in split {bench.split!r} of {collection.name}"
            )
        facts = {"file": str(path), "queries_lacking": len(asked) - len(ranked)}
        return bench.judge(name, ranking, facts)
