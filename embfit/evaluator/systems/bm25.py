"""BM25 over words, as a system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from embfit.evaluator.systems.context import EvaluationContext
from embfit.index.language import language_of
from embfit.index.lexical import Method, index_words, words_key
from embfit.index.protocol import Hits
from embfit.records import Evaluation


@dataclass(frozen=True)
class BM25System:
    """BM25 in the evaluator's language; a document that shares no word with the query is not retrieved.

    Args:
        k1: the larger, the more the repetitions of a word count.
        b: how much long documents are penalised: 0 for not at all, 1 for in proportion to their length.
        method: variant of the formula.
    """

    k1: Annotated[float, Field(ge=0)] = 1.5
    b: Annotated[float, Field(ge=0, le=1)] = 0.75
    method: Method = "lucene"

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Search words and measure; index and rankings are kept in the store.

        Raises:
            UserError: the split cannot be judged, or no document has a word.
        """
        language = language_of(context.judging.language, context.collection, context.store, "evaluator.language=auto")
        formula = (language, self.k1, self.b, self.method)
        rows, reach = context.rows, context.search.search_depth

        def find() -> Hits:
            index = index_words(context.collection, context.store, *formula)
            return index.search(list(context.collection.query_texts(rows)), reach, "searching words")

        return context.judge_hits(name, {"search": "bm25", **words_key(*formula)}, find)


def evaluate_bm25(context: EvaluationContext) -> Evaluation:
    """Measure BM25, as the system `bm25` is configured; with default settings if that is not a `BM25System`."""
    named = context.systems.get("bm25")
    system = named if isinstance(named, BM25System) else BM25System()
    return system.evaluate("bm25", context)
