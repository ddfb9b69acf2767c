"""What training looks at: a few metrics of a model that changes from one look to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embfit.evaluator.judging import Judging, judge, query_rows
from embfit.evaluator.metrics import VALIDATION_METRIC
from embfit.evaluator.search import CorpusSearch
from embfit.evaluator.subcorpus import subcorpus
from embfit.index.exact import ExactIndex
from embfit.model.encoder import Encoder
from embfit.records import Collection


def validate(judging: Judging, encoder: Encoder, collection: Collection) -> dict[str, float]:
    """Return the metrics on the dev split, embedding everything anew: weights change between two calls.

    `ndcg@10`, which training watches, is among them whatever the configured metrics, and `ndcg@10/DIM` for each of
    `judging.dims`: texts are embedded once, and the vectors cut. Documents are the judged ones and a sample of the
    others, the same in each call, up to `dev_documents`. That is quick, and too easy: values are higher than over the
    whole corpus, and to be compared with each other alone.

    Raises:
        UserError: there is no such split, none of its queries has a relevant document, or a score is no number.
    """
    split, search = judging.dev_split, CorpusSearch(collection, judging.depth)
    rows = query_rows(collection, split)
    chosen = subcorpus(collection, split, judging.dev_documents)
    queries = encoder.embed(collection.query_texts(rows), "query")
    documents = encoder.embed(collection.document_texts(chosen.tolist()), "document")

    def at(dim: int, metrics: Sequence[str]) -> Mapping[str, float]:
        scores, places = search.nearest(queries.cut(dim), ExactIndex(documents.cut(dim)))
        ranking = search.ranking(rows, (scores, chosen[places]))
        return judge("validation", collection, split, ranking, metrics).metrics

    found = dict(at(encoder.width, [*dict.fromkeys([*judging.metrics, VALIDATION_METRIC])]))
    for dim in sorted(judging.dims or ()):
        if dim < encoder.width:
            found[f"{VALIDATION_METRIC}/{dim}"] = at(dim, [VALIDATION_METRIC])[VALIDATION_METRIC]
    return found
