"""`task=finetune`: from a collection to a better model, and how much better it is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from embfit.compose.tasks import task
from embfit.evaluator import Retrieval
from embfit.evaluator.systems import evaluate_bm25
from embfit.model import EncoderChoice
from embfit.model.pretrained_cross_encoder import PretrainedCrossEncoder
from embfit.records import Report
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.closing import REPORT, close
from embfit.task.cross_encoder_trainee import CrossEncoderTrainee
from embfit.task.encoder_trainee import EncoderTrainee
from embfit.task.facts import can_validate, describe, warn_of_sources
from embfit.task.parts import Data, Miner
from embfit.task.train_once import COSTLY, TRAINED
from embfit.task.trainee import Fitting, trainee_of
from embfit.training import ListTraining, Training

if TYPE_CHECKING:
    import pytorch_lightning as pl

TRAINEES = (EncoderTrainee, CrossEncoderTrainee)
"""The kinds of model that can be fine-tuned."""


@task(outputs=(*REPORT, *TRAINED, "tensorboard", "csv"), costly=COSTLY, variants=TRAINEES)
def finetune(
    data: Data,
    model: EncoderChoice | PretrainedCrossEncoder,
    miner: Miner,
    loss: nn.Module,
    training: Training | ListTraining,
    trainer: partial[pl.Trainer],
    devices: Devices,
    evaluator: Retrieval,
    store: Store,
    run: RunFolder,
) -> Report:
    """Mine negatives, train, and evaluate base and tuned with the same code; everything is left in the run folder.

    Raises:
        ConfigError: model, loss and training do not go together.
    """
    trainee = trainee_of(TRAINEES, model, loss, training)
    with run.stage("load data"):
        collection = data.load(store)
        evaluator.check_splits(collection)
        warn_of_sources(collection, evaluator.splits)
        validating = can_validate(collection, evaluator.dev_split)
    context = evaluator.context(collection, store, trainee.first_stage, devices.all)
    contexts = [context.on(split) for split in evaluator.splits]
    with run.stage("load model"):
        base = trainee.load(context)
        truncated = trainee.count_truncated(base, context)
    with run.stage("evaluate base"):
        before = dict(trainee.measure_before(base, contexts))
        if evaluator.bm25 and trainee.base_system != "bm25":
            before["bm25"] = [evaluate_bm25(one) for one in contexts]
    with run.stage("mine negatives"):
        training_set = miner.mine(collection, context.encoder, store)
    dev = context.on(evaluator.dev_split) if validating else None
    remine = partial(miner.mine, collection, store=store)
    tuned, facts = trainee.train(base, Fitting(trainer, store, training_set, remine, dev, run))
    with run.stage("evaluate tuned"):
        after = trainee.measure_tuned(tuned, contexts)
    measured = [before["base"], after, *(found for name, found in before.items() if name != "base")]
    evaluations, production = [found[0] for found in measured], [one for found in measured for one in found[1:]]
    others = [one for one in evaluations if one is not after[0]]
    report = Report(
        task="finetune",
        evaluations=evaluations,
        comparisons=[found for other in others for found in evaluator.compare(other, after[0])],
        training=facts,
        mining=training_set.facts,
        data={**describe(collection), **truncated},
        timings=run.timings,
        sections=evaluator.gap(evaluations, production, collection),
        production=production,
    )
    return close(report, run, collection, usage=trainee.usage, card=trainee.write_card)
