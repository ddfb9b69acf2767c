"""`task=assess`: measures whether fine-tuning is worth it, and with which base model, before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from embfit.assess.advice import conclude
from embfit.assess.bare_documents import plan_queries, what_is_written
from embfit.assess.chunking import compare_chunks, piece_sizes
from embfit.assess.label_quality import judgement_gaps
from embfit.assess.late_interaction import weigh_late_interaction
from embfit.assess.power import statistical_power
from embfit.assess.training_cost import training_cost
from embfit.assess.vocabulary import vocabulary_coverage
from embfit.compose.tasks import task
from embfit.errors import ConfigError
from embfit.evaluator import Retrieval
from embfit.evaluator.systems import EvaluationContext, RerankedSystem
from embfit.generator import NoGenerator
from embfit.generator.pipeline import journals_of
from embfit.model import LateInteractionEncoder, Pretrained, encoder_at
from embfit.model.late_interaction_folder import holds_late_interaction
from embfit.model.latest_run import newest_encoder
from embfit.model.location import find_model
from embfit.records import Report
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.assess_documents import assess_documents
from embfit.task.candidate_models import candidate, for_each_model, name_models, try_model
from embfit.task.data_facts import count_truncated, describe, warn_of_language, warn_of_sources
from embfit.task.generated_data import Writer
from embfit.task.protocols import Data, EmbeddingLoss, Miner
from embfit.task.reporting import REPORT, close
from embfit.training import Training
from embfit.type_hints import ChosenBy, Location

if TYPE_CHECKING:
    import pytorch_lightning as pl

log = logging.getLogger(__name__)
Positive = Annotated[int, Field(ge=1)]


@task(outputs=REPORT, spreads=True)
def assess(
    data: Data,
    model: Annotated[
        Pretrained, ChosenBy("a model of one vector a text (task.late=FOLDER measures late interaction beside it)")
    ],
    miner: Miner,
    loss: EmbeddingLoss,
    training: Training,
    trainer: partial[pl.Trainer],
    devices: Devices,
    evaluator: Retrieval,
    generator: Writer,
    store: Store,
    run: RunFolder,
    models: Sequence[str] = (),
    systems: Sequence[str] = ("bm25", "hybrid", "weighted"),
    late: Annotated[str | None, Location()] = None,
    runs: str = "outputs",
    chunk_sizes: Sequence[Annotated[int, Field(ge=32)]] | None = None,
    chunk_documents: Positive = 2000,
    timed_documents: Positive = 256,
    trial_steps: Annotated[int, Field(ge=0)] = 40,
    hoped_gain: Annotated[float, Field(gt=0, lt=1)] = 0.03,
    price_per_hour: Annotated[float, Field(ge=0)] | None = None,
) -> Report:
    """Measure systems that need no training, estimate the cost of training, and recommend one action.

    For documents without queries it reports their words and lengths, the cost of embedding and training, and what a
    generator would write; it claims nothing about quality.

    Args:
        data: the collection.
        model: the base model, the system `base`.
        miner: mines for the trial training, as for a fine-tuning.
        loss: the loss of the trial training.
        training: the settings of the trial training.
        trainer: makes Lightning's Trainer from the arguments that training adds.
        devices: all of them encode.
        evaluator: measures, and knows the systems by name.
        generator: what its queries would cost is reported; it writes none. Without one, documents without queries are
            assessed for `extractive`.
        store: keeps embeddings, indexes and rankings.
        run: the folder of this run.
        models: further base models, folders or names on the Hub; if one cannot be measured, the report gives the
            reason and the others are still measured.
        systems: names of `evaluator.systems` that need no training; those that rerank with a cross-encoder are
            always measured.
        late: a late-interaction model, a folder or a name on the Hub, that is measured on a sample; None is the newest
            one from a finished fine-tuning on the same documents, if there is one.
        runs: the folder in which such fine-tunings are looked for.
        chunk_sizes: tokens of the pieces that documents are cut into, at most the model's length; None is that and
            half of it.
        chunk_documents: how many documents the sizes are compared on; all judged ones, if those are more.
        timed_documents: how many documents each model embeds to measure its speed.
        trial_steps: how many steps the trial trains, or a fine-tuning's number of steps if that is smaller. Their time
            and their gain on the dev split are measured; 0 makes no trial.
        hoped_gain: a gain in the first metric; the report says how many queries it takes to detect it.
        price_per_hour: the price of an hour of this machine, in any currency; None leaves prices out.
    """
    with run.stage("load data"):
        collection = data.load(store)
        if collection.qrels:
            evaluator.check_splits(collection)
            warn_of_sources(collection, evaluator.splits)
    context = evaluator.context(collection, store, model, devices.all)
    cost_of = partial(
        training_cost,
        miner=miner,
        loss=loss,
        training=training,
        trainer=trainer,
        resamples=evaluator.resamples,
        steps=trial_steps,
        price_per_hour=price_per_hour,
    )
    with run.stage("load model"):
        late_model = _late_model(late, runs, context)
        warn_of_language(context.encoder, collection, store)
        truncated = count_truncated(context.encoder, collection, store)
    if not collection.qrels:
        return assess_documents(context, generator, models, late_model, timed_documents, truncated, cost_of, run)
    planned = ""
    if not isinstance(generator, NoGenerator):  # before anything is measured, since the generator may refuse
        with run.stage("estimate queries"):
            estimated = plan_queries(generator, collection, context.encoder, store, journals_of(store, run.dir))
            planned = what_is_written(generator.name, estimated)
    users = context.on(evaluator.production) if evaluator.production else None
    names = dict.fromkeys(["base", *systems, *_rerankers(evaluator)])
    with run.stage("find models"):
        there = partial(find_model, packages=model.packages)
        found, missing = for_each_model(name_models(models, [*names]), lambda name, path: (path, there(path)))
    is_cut = truncated["truncated_documents"] > 0
    sizes = piece_sizes(chunk_sizes, context.encoder.max_length) if is_cut else []
    with run.stage("measure systems"):
        base, *others = map(context.evaluation, names)
        production = [users.evaluation(name) for name in names] if users else []
    with run.stage("measure models"):
        paths = {name: path for name, (path, _) in found.items()}
        contexts = [context, *([users] if users else [])]
        attempt = partial(try_model, context=context, documents=timed_documents, judged=contexts)
        measured, broken = for_each_model(paths, attempt)
        tried = measured.values()
        candidates = [candidate("base", context.encoder, context, timed_documents), *(one for _, one in tried)]
    evaluations = [base, *(found for (found, *_), _ in tried), *others]
    production[1:1] = [found for (_, *on_users), _ in tried for found in on_users]
    comparisons = evaluator.compare_all(evaluations)
    with run.stage("compare chunks"):
        chunks = compare_chunks(context, sizes, chunk_documents, evaluator.compare_all) if is_cut else {}
    with run.stage("read words and labels"):
        read = {
            "vocabulary": vocabulary_coverage(context),
            "labels": judgement_gaps(context, evaluations),
            "power": statistical_power(base, evaluations[1:], hoped_gain),
        }
    with run.stage("weigh late interaction"):
        weighed = weigh_late_interaction(context, late_model, chunk_documents, hoped_gain, evaluator.compare_all)
    with run.stage("time training"):
        cost = cost_of(context, base=candidates[0])
    other = {"cost": cost, "failed": {**missing, **broken}, "late": weighed, "generation": planned}
    measured_parts = {**read, "chunks": chunks, **other}
    conclusion = conclude(base, comparisons, candidates, measured_parts)
    report = Report(
        task="assess",
        evaluations=evaluations,
        comparisons=comparisons,
        data={**describe(collection), **truncated},
        timings=run.timings,
        sections={"assessment": conclusion, **evaluator.gap(evaluations, production, collection)},
        production=production,
    )
    return close(report, run, collection, sentences=[f"- {reason}" for reason in conclusion["reasons"]])


def _late_model(path: str | None, runs: str, context: EvaluationContext) -> LateInteractionEncoder | None:
    """Load the late-interaction model that is named, or the newest of these documents; None if there is neither.

    Raises:
        ConfigError: the named model has one vector for each text.
    """
    found = path or newest_encoder(Path(runs), context.collection, holds_late_interaction)
    if found is None:
        return None
    encoder = encoder_at(str(found), context.model).load(*context.devices, store=context.store)
    if not isinstance(encoder, LateInteractionEncoder):
        raise ConfigError(f"task.late={path} is a model of one vector a text; name it in task.models instead")
    log.info("late interaction is measured by %s", found)
    return encoder


def _rerankers(evaluator: Retrieval) -> list[str]:
    """Return the systems that rerank with a cross-encoder."""
    return [name for name, system in evaluator.systems.items() if isinstance(system, RerankedSystem) and system.path]
