"""`task=assess` on documents without queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from embfit.assess.bare_documents import conclude_documents, plan_queries, sample_with_queries
from embfit.assess.label_quality import copied_documents
from embfit.assess.late_interaction import index_size
from embfit.assess.vocabulary import document_words
from embfit.errors import UserError
from embfit.evaluator.systems import EvaluationContext
from embfit.generator import ExtractiveGenerator, NoGenerator
from embfit.generator.pipeline import journals_of
from embfit.generator.protocol import Estimate
from embfit.model import LateInteractionEncoder
from embfit.records import Report
from embfit.run.folder import RunFolder
from embfit.task.candidate_models import candidate, for_each_model, name_models, try_model
from embfit.task.data_facts import describe
from embfit.task.generated_data import Writer
from embfit.task.reporting import close


def assess_documents(
    context: EvaluationContext,
    generator: Writer,
    models: Sequence[str],
    late: LateInteractionEncoder | None,
    timed_documents: int,
    truncated: Mapping[str, int],
    cost_of: Callable[..., dict[str, Any]],
    run: RunFolder,
) -> Report:
    """Report what is known about documents without queries, and what their queries would take.

    Args:
        context: has the documents and the configured model.
        generator: what would write queries; without one, `extractive`.
        models: further base models, folders or names on the Hub.
        late: a late-interaction model, whose index is estimated; None for one with the default settings.
        timed_documents: how many documents each model embeds to measure its speed.
        truncated: how many texts the configured model cuts off, for the report's data.
        cost_of: times a training on a context's queries, and returns what `training_cost` does.
        run: the folder of this run.
    """
    collection, encoder, store, seed = context.collection, context.encoder, context.store, context.judging.seed
    writer = ExtractiveGenerator(seed=seed) if isinstance(generator, NoGenerator) else generator
    is_chosen = writer is generator
    with run.stage("estimate queries"):
        try:
            planned = plan_queries(writer, collection, encoder, store, journals_of(store, run.dir))
        except UserError:
            if is_chosen:
                raise
            planned = Estimate(documents=0, queries=0)
    with run.stage("measure models"):
        attempt = partial(try_model, context=context, documents=timed_documents)
        tried, failed = for_each_model(name_models(models, ["base"]), attempt)
        candidates = [candidate("base", encoder, context, timed_documents), *(one for _, one in tried.values())]
    with run.stage("read words"):
        read = {
            "vocabulary": document_words(encoder, collection),
            "labels": {"copied_documents": copied_documents(collection)},
            "late": index_size(encoder, late, collection, seed),
        }
    cost: dict[str, Any] = {"trial": None, "estimates": []}
    if is_chosen:  # it has chosen the miner and the training
        with run.stage("time training"):
            sample = context.about(sample_with_queries(collection, planned.queries, seed))
            cost = cost_of(sample, base=candidates[0], sizes=[len(collection.corpus)])
    measured = {**read, "cost": cost, "failed": failed}
    conclusion = conclude_documents(collection, writer.name, planned, is_chosen, candidates, measured)
    report = Report(
        task="assess",
        evaluations=[],
        comparisons=[],
        data={**describe(collection), **truncated},
        timings=run.timings,
        sections={"assessment": conclusion},
    )
    sentences = [conclusion["recommendation"], *(f"- {reason}" for reason in conclusion["reasons"])]
    return close(report, run, collection, sentences=sentences)
