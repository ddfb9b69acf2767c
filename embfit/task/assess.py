"""`task=assess`: measures whether fine-tuning is worth it, and with which base model, before anything is trained."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field
from torch import nn

from embfit.assess.advice import conclude
from embfit.assess.candidates import ModelCandidate, measure_candidate
from embfit.assess.chunking import compare_chunks, piece_sizes
from embfit.assess.label_quality import judgement_gaps
from embfit.assess.late_interaction import weigh_late_interaction
from embfit.assess.power import statistical_power
from embfit.assess.vocabulary import vocabulary_coverage
from embfit.compose.tasks import task
from embfit.errors import ConfigError, UserError
from embfit.evaluator import Retrieval
from embfit.evaluator.systems import DenseSystem, EvaluationContext, RerankedSystem, evaluate_other
from embfit.model import Encoder, LateInteractionEncoder, Pretrained, encoder_at, tokenized
from embfit.model.late_interaction_folder import holds_late_interaction
from embfit.model.latest_run import newest_encoder
from embfit.model.location import find_model
from embfit.records import Collection, Evaluation, Report
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.data_facts import count_truncated, describe, warn_of_language, warn_of_sources
from embfit.task.protocols import Data, EmbeddingLoss, Miner
from embfit.task.reporting import REPORT, close
from embfit.training import Training
from embfit.type_hints import ChosenBy, Location

if TYPE_CHECKING:
    import pytorch_lightning as pl

log = logging.getLogger(__name__)
Positive = Annotated[int, Field(ge=1)]
Found = TypeVar("Found")


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

    Args:
        data: the collection.
        model: the base model, the system `base`.
        miner: mines for the trial training, as for a fine-tuning.
        loss: the loss of the trial training.
        training: the settings of the trial training.
        trainer: makes Lightning's Trainer from the arguments that training adds.
        devices: all of them encode.
        evaluator: measures, and knows the systems by name.
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
        evaluator.check_splits(collection)
        warn_of_sources(collection, evaluator.splits)
    context = evaluator.context(collection, store, model, devices.all)
    users = context.on(evaluator.production) if evaluator.production else None
    names = dict.fromkeys(["base", *systems, *_rerankers(evaluator)])
    with run.stage("load model"):
        there = partial(find_model, packages=model.packages)
        found, missing = _each(_named(models, [*names]), lambda name, path: (path, there(path)))
        late_model = _late_model(late, runs, context)
        truncated = count_truncated(context.encoder, collection, store)
        warn_of_language(context.encoder, collection, store)
        is_cut = truncated["truncated_documents"] > 0
        sizes = piece_sizes(chunk_sizes, context.encoder.max_length) if is_cut else []
    with run.stage("measure systems"):
        base, *others = map(context.evaluation, names)
        production = [users.evaluation(name) for name in names] if users else []
    with run.stage("measure models"):
        paths = {name: path for name, (path, _) in found.items()}
        contexts = [context, *([users] if users else [])]
        measured, broken = _each(paths, partial(_try, contexts=contexts, documents=timed_documents))
        tried = measured.values()
        candidates = [_candidate("base", context.encoder, context, timed_documents), *(one for _, one in tried)]
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
        trial = partial(_try_training, context, miner, loss, training, trainer, evaluator.resamples)
        cost = trial(trial_steps, candidates[0], price_per_hour)
    measured_parts = {**read, "chunks": chunks, "cost": cost, "failed": {**missing, **broken}, "late": weighed}
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


def _candidate(name: str, encoder: Encoder, context: EvaluationContext, documents: int) -> ModelCandidate:
    truncated = tokenized(encoder, context.collection, "document", context.store).truncated
    return measure_candidate(name, encoder, context.collection, truncated, documents, context.judging.seed)


def _named(models: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """Name models by the last part of their paths; if that is taken, by the whole path, or with a number appended."""
    named: dict[str, str] = {}
    for path in dict.fromkeys(models):
        last = path.rstrip("/").rpartition("/")[2]
        names = chain([last, path], (f"{last}-{number}" for number in count(2)))
        named[next(name for name in names if name not in (*taken, *named))] = path
    return named


def _each(named: Mapping[str, str], attempt: Callable[[str, str], Found]) -> tuple[dict[str, Found], dict[str, str]]:
    """Call a function with each model's path; return the results by name, and the errors of those that failed."""
    found: dict[str, Found] = {}
    failed: dict[str, str] = {}
    for name, path in named.items():
        try:
            found[name] = attempt(name, path)
        except UserError as error:
            failed[name] = str(error)
            log.warning("%s is left out: %s", name, error)
    return found, failed


def _try(
    name: str, path: str, contexts: Sequence[EvaluationContext], documents: int
) -> tuple[list[Evaluation], ModelCandidate]:
    """Measure another base model's quality on every context, and its speed."""
    context, *_ = contexts
    encoder = DenseSystem(path).choice(name, context.model).load(*context.devices, store=context.store)
    if not encoder.single:
        raise UserError(f"{path} is a late-interaction model, which task.models cannot measure; task.late={path} does")
    return [evaluate_other(name, encoder, one) for one in contexts], _candidate(name, encoder, context, documents)


def _try_training(
    context: EvaluationContext,
    miner: Miner,
    loss: nn.Module,
    training: Training,
    trainer: partial[pl.Trainer],
    resamples: int,
    steps: int,
    base: ModelCandidate,
    price_per_hour: float | None,
) -> dict[str, Any]:
    """Mine as for a fine-tuning, train for a few steps, extrapolate their time and measure their gain."""
    from embfit.assess.trial import estimate, time_training  # Lightning takes seconds to import
    from embfit.assess.trial_gain import trial_gain

    examples = _training_queries(context.collection)
    if not steps or not examples:
        log.info("no trial: %s", "task.trial_steps=0" if not steps else "there is no train split")
        return {"examples": examples, "trial": None, "estimates": [], "gain": None}
    training_set = miner.mine(context.collection, context.encoder, context.store)
    model = context.model.by_pytorch  # only PyTorch trains
    encoder = model.load(context.devices[0])
    planned = training.steps or training.epochs * math.ceil(len(training_set) / training.batch_size)
    timed = max(1, min(steps, planned - 1))  # one more step for warming up
    with model.trainable(encoder):  # the same weights as a fine-tuning: all, the upper layers, or an adapter
        trial = time_training(encoder, loss, training, trainer, training_set, context.store, timed)
    gain = trial_gain(context.encoder, encoder, context.collection, context.judging, resamples)
    epochs = training.steps / trial.steps_per_epoch if training.steps else training.epochs
    here = len(context.collection.corpus)
    estimates = estimate(trial, training, here, base.documents_per_second, base.dimensions, price_per_hour)
    fixed = {"steps": training.steps, "max_time": training.max_time}
    return {
        "examples": examples,
        "epochs": epochs,
        **fixed,
        "trial": asdict(trial),
        "estimates": estimates,
        "gain": gain,
    }


def _training_queries(collection: Collection) -> int:
    return sum(any(grade >= 1 for grade in grades.values()) for grades in collection.qrels.get("train", {}).values())
