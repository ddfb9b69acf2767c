"""Systems measured on collections that are there already."""

from typing import Any

from embfit.evaluator import Retrieval
from embfit.evaluator.systems import EvaluationContext, evaluate_bm25, evaluate_encoder
from embfit.model import Pretrained
from embfit.records import Collection, Evaluation
from embfit.store import Store


def evaluate(
    retriever: Retrieval,
    encoder: Any,
    collection: Collection,
    store: Store,
    split: str | None = None,
    system: str = "base",
) -> Evaluation:
    """Measure an encoder as fine-tuning does."""
    context = retriever.context(collection, store, Pretrained("unused"))
    return evaluate_encoder(system, encoder, context.on(split or retriever.split))


def evaluate_words(retriever: Retrieval, collection: Collection, store: Store) -> Evaluation:
    """Measure BM25 as fine-tuning does."""
    return evaluate_bm25(retriever.context(collection, store, Pretrained("unused")))


def changed(context: EvaluationContext, **changes: Any) -> EvaluationContext:
    """Make a context like another one, which has measured nothing yet, with some of its parts changed."""
    parts = {
        name: getattr(context, name)
        for name in ("collection", "split", "judging", "systems", "store", "model", "devices")
    }
    return EvaluationContext(**parts | changes)
