"""The retrieval systems that can be measured: each is a small class that ranks documents for the same queries."""

from embfit.evaluator.systems.bm25 import BM25System, evaluate_bm25
from embfit.evaluator.systems.context import EvaluationContext, System
from embfit.evaluator.systems.dense import ConfiguredSystem, DenseSystem, evaluate_encoder, evaluate_other
from embfit.evaluator.systems.endpoint import EndpointSystem
from embfit.evaluator.systems.fused import RankFusion, ScoreFusion, fuse_with_words
from embfit.evaluator.systems.late import LateModel, LateRerankedSystem, LateSystem
from embfit.evaluator.systems.reranked import RerankedSystem
from embfit.evaluator.systems.trec_file import TrecFileSystem

__all__ = [
    "BM25System",
    "ConfiguredSystem",
    "DenseSystem",
    "EndpointSystem",
    "EvaluationContext",
    "LateModel",
    "LateRerankedSystem",
    "LateSystem",
    "RankFusion",
    "RerankedSystem",
    "ScoreFusion",
    "System",
    "TrecFileSystem",
    "evaluate_bm25",
    "evaluate_encoder",
    "evaluate_other",
    "fuse_with_words",
    "standard",
]


def standard() -> dict[str, System]:
    """Return the systems that need nothing but a collection and a model: `base`, `bm25`, `hybrid` and `weighted`."""
    return {"base": ConfiguredSystem(), "bm25": BM25System(), "hybrid": RankFusion(), "weighted": ScoreFusion()}
