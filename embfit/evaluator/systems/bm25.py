"""BM25 over words, as a system."""

from __future__ import annotations

from dataclasses import dataclass, replace

from embfit.evaluator.systems.bench import Bench
from embfit.records import Evaluation


@dataclass(frozen=True)
class BM25:
    """BM25 in the evaluator's language; a document that shares no word with the query is not retrieved."""

    def evaluate(self, name: str, bench: Bench) -> Evaluation:
        """Search words and measure."""
        found = bench.evaluator.evaluate_bm25(bench.collection, bench.store, bench.split)
        return replace(found, system=name)
