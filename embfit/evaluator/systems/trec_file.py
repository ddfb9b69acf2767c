"""A ranking that another tool made, as a system."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from embfit.data.trec import check_unknown, read_run
from embfit.errors import ConfigError, UserError
from embfit.evaluator.systems.context import EvaluationContext
from embfit.records import Evaluation, Ranking
from embfit.type_hints import Location


@dataclass(frozen=True)
class TrecFileSystem:
    """A TREC run file, from another search engine or from an earlier run's `rankings/`.

    Args:
        path: the file.
    """

    path: Annotated[str | None, Location()] = None

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Read the file, cut it at the evaluator's depth and measure; queries missing from it score 0.

        Raises:
            ConfigError: no file is named.
            UserError: documents of the file are not in the collection, or none of its queries is in the split.
        """
        if self.path is None:
            raise ConfigError(f"evaluator.systems.{name}.path is not set; give a TREC run file")
        path, collection = Path(self.path), context.collection
        split_queries = {collection.query_ids[row] for row in context.rows}
        found = read_run(path).documents
        known = collection.document_rows
        answers, unknown = {}, {}
        for query, documents in found.items():
            if query in split_queries:
                answers[query] = [document for document in documents if document[0] in known]
                unknown.update({name: f"{path}: query {query!r}" for name, _ in documents if name not in known})
        check_unknown(path, unknown, collection)
        ranking = Ranking.of(answers, context.judging.depth, collection.exclude_self)
        ranked = ranking.documents
        if not ranked:
            raise UserError(
                f"{path}: none of its {len(found)} queries is in split {context.split!r} of {collection.name}"
            )
        facts = {"file": str(path), "queries_lacking": len(split_queries) - len(ranked)}
        return context.judge(name, ranking, facts)
