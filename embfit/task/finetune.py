"""`task=finetune`: trains a model on a collection and measures how much better it is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from torch import nn

from embfit.compose.tasks import task
from embfit.evaluator import Retrieval
from embfit.evaluator.systems import EvaluationContext, evaluate_bm25, fuse_with_words
from embfit.model import Encoder, EncoderChoice
from embfit.model.pretrained_cross_encoder import PretrainedCrossEncoder
from embfit.records import Evaluation, Report, TrainingSet
from embfit.review.decisions import read_decisions
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.cross_encoder_trainee import CrossEncoderTrainee
from embfit.task.data_facts import can_validate, check_negatives, describe, warn_of_sources
from embfit.task.encoder_trainee import EncoderTrainee
from embfit.task.generated_data import Generation, Writer
from embfit.task.protocols import Data, Miner, Teacher
from embfit.task.reporting import REPORT, close
from embfit.task.train_once import COSTLY, TRAINED
from embfit.task.trainee import Fitting, trainee_of
from embfit.teacher import NoTeacher
from embfit.training import ListTraining, Training

if TYPE_CHECKING:
    import pytorch_lightning as pl

TRAINEES = (EncoderTrainee, CrossEncoderTrainee)
"""The kinds of model that can be fine-tuned."""

FUSED = {"base": "hybrid", "tuned": "tuned_hybrid"}
"""The systems that are a model together with BM25, by the model's: before training, and after it."""


@task(
    outputs=(*REPORT, *TRAINED, "tensorboard", "csv", "queries*.parquet"),
    costly=COSTLY,
    paid=("generation",),
    spreads=True,
    variants=TRAINEES,
)
def finetune(
    data: Data,
    model: EncoderChoice | PretrainedCrossEncoder,
    generator: Writer,
    evaluation: Writer,
    miner: Miner,
    teacher: Teacher,
    loss: nn.Module,
    training: Training | ListTraining,
    trainer: partial[pl.Trainer],
    devices: Devices,
    evaluator: Retrieval,
    store: Store,
    run: RunFolder,
    labels: bool = True,
    held_out: Annotated[float, Field(ge=0, lt=0.5)] = 0.1,
    review: str | None = None,
) -> Report:
    """Mine negatives, train, and evaluate base and tuned model with the same code. The run folder gets all results.

    If a generator is configured, it first writes training queries about the documents.

    Args:
        data: the documents, and perhaps queries.
        model: the model to train.
        generator: writes training queries.
        evaluation: writes the queries of a missing dev or test split; none leaves them to `generator`.
        miner: finds negatives.
        teacher: is trained first, and the model learns from its scores; or none.
        loss: the loss that training minimises.
        training: how the model is trained.
        trainer: makes Lightning's Trainer from the arguments that training adds.
        devices: the devices for training and encoding.
        evaluator: measures the models, and names the splits.
        store: keeps the results of stages.
        run: the run folder, which gets the model and the report.
        labels: whether to train on the data's own pairs beside generated ones; false hides them, and a dev split that
            was held out of them.
        held_out: the share of the documents whose generated queries become dev, and test, if the data have none.
        review: the file that reviewers export from the page of `embfit review`; it overrides the generator's filters.

    Raises:
        ConfigError: model, loss and training do not fit together.
    """
    trainee = trainee_of(TRAINEES, model, loss, training)
    load = cache(partial(trainee.first_stage.load, *devices.all))
    decisions = None if review is None else read_decisions(Path(review))
    with run.stage("load data"):
        loaded = data.load(store)
    generation = Generation(
        generator, evaluation, evaluator, load, store, run, labels, held_out, devices.first, decisions
    )
    trained_on = generation.apply(loaded)
    collection = trained_on.collection
    evaluator.check_splits(collection)
    if getattr(loss, "on_lists", False) or not isinstance(teacher, NoTeacher):
        check_negatives(miner, collection)
    warn_of_sources(collection, evaluator.splits)
    validating = can_validate(collection, evaluator.dev_split)
    context = evaluator.context(collection, store, trainee.first_stage, devices.all, load)
    contexts = [context.on(split) for split in evaluator.splits]
    with run.stage("load model"):
        base = trainee.load(context, devices.sharded and devices.size > 1)
        truncated = trainee.count_truncated(base, context)
    with run.stage("evaluate base"):
        before = dict(trainee.measure_before(base, contexts))
        if evaluator.bm25 and trainee.base_system != "bm25":
            before["bm25"] = [evaluate_bm25(one) for one in contexts]

    def mine(encoder: Encoder) -> TrainingSet:
        return trained_on.mine(miner, encoder, store)

    with run.stage("mine negatives"):
        mined = mine(context.encoder)
    dev = context.on(evaluator.dev_split) if validating else None
    if isinstance(teacher, NoTeacher):
        fitting = Fitting(trainer, store, mined, mine, dev, run)
    else:
        with run.stage("train teacher"):
            taught = teacher.learn(mined, context, dev, trainer)
            fitting = Fitting(trainer, store, taught.score(mined), lambda one: taught.score(mine(one)), dev, run)
    tuned, facts = trainee.train(base, fitting)
    with run.stage("evaluate tuned"):
        after = trainee.measure_tuned(tuned, contexts)
    measured = {"base": before["base"], "tuned": after, **before}
    evaluations = [found[0] for found in measured.values()]
    production = [one for found in measured.values() for one in found[1:]]
    fused = _fused({one.system: one for one in evaluations}, contexts[0]) if trainee.fuses_with_words else []
    others = [one for one in (*evaluations, *fused[:1]) if one is not after[0]]
    compared = [(one, after[0]) for one in others]
    if fused:
        compared.append((fused[0], fused[1]))
    report = Report(
        task="finetune",
        evaluations=[*evaluations, *fused],
        comparisons=[found for one, other in compared for found in evaluator.compare(one, other)],
        training=facts,
        mining=fitting.training_set.facts,
        data={**describe(collection), **truncated},
        timings=run.timings,
        sections={**trained_on.sections, **evaluator.gap(evaluations, production, collection)},
        production=production,
    )
    said = trained_on.sentences
    return close(report, run, collection, usage=trainee.usage, card=trainee.write_card, sentences=said)


def _fused(measured: Mapping[str, Evaluation], context: EvaluationContext) -> list[Evaluation]:
    """Measure the base and the tuned model fused with BM25, if BM25 was measured and found something.

    Words and vectors fail on different documents, so even the fused base may be better than the tuned model.
    """
    words = measured.get("bm25")
    if words is None or not words.found_any:
        return []
    return [fuse_with_words(name, measured[model], words, context) for model, name in FUSED.items()]
