"""BM25 over words, as a system."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from embfit.evaluator.systems.context import EvaluationContext
from embfit.index.lexical import Method
from embfit.records import Evaluation


@dataclass(frozen=True)
class BM25System:
    """BM25 in the evaluator's language; a document that shares no word with the query is not retrieved.

    Args:
        k1: how slowly repetitions of a word stop counting.
        b: how much a long document is held back.
        method: variant of the formula.
    """

    k1: Annotated[float, Field(ge=0)] = 1.5
    b: Annotated[float, Field(ge=0, le=1)] = 0.75
    method: Method = "lucene"

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Search words and measure."""
        found = context.evaluator.evaluate_bm25(context.collection, context.store, context.split, self)
        return replace(found, system=name)
