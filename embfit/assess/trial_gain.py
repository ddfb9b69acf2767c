"""What the trial's training gains on the dev split: whether fine-tuning pays is measured, not guessed from the base."""

from __future__ import annotations

from typing import Any

from embfit.evaluator.comparison import compare
from embfit.evaluator.judging import Judging
from embfit.evaluator.metrics import answerable
from embfit.evaluator.validation import measured_on_dev
from embfit.model import Encoder
from embfit.records import Collection


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
    before, after = (
        measured_on_dev(judging, encoder, collection)(encoder.width, judging.metrics[:1]) for encoder in (base, trained)
    )
    found, *_ = compare(before, after, resamples, judging.seed)
    ci95 = None if found.ci95 is None else list(found.ci95)
    return {
        "metric": found.metric,
        "queries": found.queries,
        "difference": found.difference,
        "ci95": ci95,
        "p": found.p,
    }
