"""What the trial's training gains on the dev split: whether fine-tuning pays is measured, not guessed from the base."""

from __future__ import annotations

from typing import Any

from embfit.evaluator.comparison import compare
from embfit.evaluator.judging import Judging, judge, query_rows
from embfit.evaluator.metrics import answerable
from embfit.evaluator.search import CorpusSearch
from embfit.evaluator.subcorpus import subcorpus
from embfit.index.exact import ExactIndex
from embfit.model import Encoder
from embfit.records import Collection, Evaluation


def trial_gain(
    base: Encoder, trained: Encoder, collection: Collection, judging: Judging, resamples: int
) -> dict[str, Any] | None:
    """Compare a model before and after the trial on the dev split, query by query.

    Documents are the judged ones and a sample of the others, as in the validations of a training: values are higher
    than over the whole corpus, and their difference alone counts.

    Args:
        base: the model before the trial.
        trained: the model after it.
        collection: the collection.
        judging: the metrics, the dev split and the size of the sample.
        resamples: the number of resamples of the bootstrap and of the test.

    Returns:
        `metric`, `queries`, the `difference`, its `ci95` and `p`; None where no dev query has a relevant document.
    """
    if not answerable(collection.qrels.get(judging.dev_split, {})):
        return None
    before, after = (_measure(encoder, collection, judging) for encoder in (base, trained))
    found, *_ = compare(before, after, resamples, judging.seed)
    ci95 = None if found.ci95 is None else list(found.ci95)
    return {
        "metric": found.metric,
        "queries": found.queries,
        "difference": found.difference,
        "ci95": ci95,
        "p": found.p,
    }


def _measure(encoder: Encoder, collection: Collection, judging: Judging) -> Evaluation:
    split, search = judging.dev_split, CorpusSearch(collection, judging.depth)
    rows, chosen = query_rows(collection, split), subcorpus(collection, split, judging.dev_documents)
    queries = encoder.embed(collection.query_texts(rows), "query")
    documents = encoder.embed(collection.document_texts(chosen.tolist()), "document")
    scores, places = search.nearest(queries, ExactIndex(documents))
    return judge("trial", collection, split, search.ranking(rows, (scores, chosen[places])), judging.metrics[:1])
