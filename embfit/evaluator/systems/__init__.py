"""What can be measured: every kind of retrieval system, each a small class that answers the same queries."""

from embfit.evaluator.systems.bench import Bench, System
from embfit.evaluator.systems.bm25 import BM25
from embfit.evaluator.systems.dense import Configured, Dense
from embfit.evaluator.systems.endpoint import Endpoint
from embfit.evaluator.systems.fused import RankFusion, ScoreFusion
from embfit.evaluator.systems.reranked import Reranked
from embfit.evaluator.systems.trec_file import TrecFile

__all__ = [
    "BM25",
    "Bench",
    "Configured",
    "Dense",
    "Endpoint",
    "RankFusion",
    "Reranked",
    "ScoreFusion",
    "System",
    "TrecFile",
    "standard",
]


def standard() -> dict[str, System]:
    """Return the systems that need nothing but a collection and a model: `base`, `bm25`, `hybrid` and `weighted`."""
    return {"base": Configured(), "bm25": BM25(), "hybrid": RankFusion(), "weighted": ScoreFusion()}
