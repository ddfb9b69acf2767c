"""A context whose texts are known."""

from collections.abc import Mapping

from datasets import Dataset

from embfit.evaluator import Retrieval
from embfit.evaluator.systems import EvaluationContext
from embfit.model import Encoder, Pretrained
from embfit.records import Collection
from embfit.store import Store


def context(
    encoder: Encoder,
    store: Store,
    documents: Mapping[str, str],
    queries: Mapping[str, str],
    grades: Mapping[str, Mapping[str, int]],
    titles: Mapping[str, str] | None = None,
) -> EvaluationContext:
    """Make a context of plain texts with one split, `test`, on a model that is there already."""
    titles = titles or {}
    corpus = {"_id": list(documents), "title": [titles.get(id, "") for id in documents], "text": [*documents.values()]}
    asked = {"_id": list(queries), "text": [*queries.values()]}
    collection = Collection("small", Dataset.from_dict(corpus), Dataset.from_dict(asked), {"test": grades})
    return Retrieval(metrics=("ndcg@10",)).context(collection, store, Pretrained("none"), load=lambda: encoder)
