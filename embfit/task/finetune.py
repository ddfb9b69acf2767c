"""`task=finetune`: from a collection to a better encoder, and how much better it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from embfit.errors import ConfigError
from embfit.evaluator import Retrieval
from embfit.evaluator.systems import evaluate_bm25, evaluate_encoder
from embfit.evaluator.validation import validate as validate_on_dev
from embfit.model import Encoder, Pretrained, save_encoder
from embfit.model.pretrained_cross_encoder import PretrainedCrossEncoder
from embfit.records import Report
from embfit.report import print_table, write_report
from embfit.report.model_card import write_card
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.closing import where_things_are
from embfit.task.facts import can_validate, count_truncated, describe, warn_of_sources
from embfit.task.finetune_cross_encoder import finetune_cross_encoder
from embfit.task.parts import Data, Miner
from embfit.task.train_once import train_once
from embfit.training import Fit, ListTraining, Training
from embfit.training.ranks.layout import layout_of

if TYPE_CHECKING:
    import pytorch_lightning as pl


def finetune(
    data: Data,
    model: Pretrained | PretrainedCrossEncoder,
    miner: Miner,
    loss: nn.Module,
    training: Training | ListTraining,
    trainer: partial[pl.Trainer],
    evaluator: Retrieval,
    store: Store,
    run: RunFolder,
) -> Report:
    """Mine negatives, train, and evaluate base and tuned with the same code; everything is left in the run folder.

    A cross-encoder is compared with the ranking that it puts in order (`finetune_cross_encoder`).

    Raises:
        ConfigError: model and training do not go together.
    """
    if isinstance(model, PretrainedCrossEncoder):
        return finetune_cross_encoder(data, model, miner, loss, training, trainer, evaluator, store, run)
    if isinstance(training, ListTraining):
        raise ConfigError("training=lists is for model=cross-encoder; set training=in-batch")
    layout = layout_of(trainer)
    with run.stage("load data"):
        collection = data.load(store)
        evaluator.check_splits(collection)
        warn_of_sources(collection, evaluator.splits)
        validating = can_validate(collection, evaluator.dev_split)
    with run.stage("load model"):
        encoder = model.load(*layout.devices)
        model.check(encoder)
        training.check_loss(encoder, loss)
        truncated = count_truncated(encoder, collection, store)
        context = evaluator.context(collection, store, model, layout.devices)
        contexts = [context.on(split) for split in evaluator.splits]
    with run.stage("evaluate base"):
        base, *base_production = [evaluate_encoder("base", encoder, context) for context in contexts]
        words = [evaluate_bm25(context) for context in contexts] if evaluator.bm25 else []
        bm25, bm25_production = words[:1], words[1:]
    with run.stage("mine negatives"):
        training_set = miner.mine(collection, encoder, store)
    with run.stage("train"):
        validate = partial(validate_on_dev, evaluator.judging, collection=collection) if validating else None
        remine = partial(miner.mine, collection, store=store)
        fit = partial(training.fit, encoder, loss, training_set, validate, trainer, store, remine=remine)
        encoder, facts = _train(encoder, model, fit, run)
    with run.stage("evaluate tuned"):
        tuned, *production = [evaluate_encoder("tuned", encoder, context) for context in contexts]
    with run.stage("report"):
        evaluations, production = [base, tuned, *bm25], [*base_production, *production, *bm25_production]
        report = Report(
            task="finetune",
            evaluations=evaluations,
            comparisons=[found for other in (base, *bm25) for found in evaluator.compare(other, tuned)],
            training=facts,
            mining=training_set.facts,
            data={**describe(collection), **truncated},
            timings=run.timings,
            sections=evaluator.gap(evaluations, production, collection),
            production=production,
        )
        write_report(report, run.dir, run.config, run.origins, collection, run.command)
        write_card(run.dir / "model", str(model.path), report, run.config)
    print_table(report)
    print(where_things_are(run, "task=search query='...' tuned={}", ("data", "model", "experiment", "store")))
    return report


def _train(
    encoder: Encoder, model: Pretrained, fit: Callable[[Path], Fit], run: RunFolder
) -> tuple[Encoder, Mapping[str, Any]]:
    """Train and save the model, or take what an interrupted run had saved already."""

    def trained(folder: Path) -> Fit:
        with model.trainable(encoder):
            return fit(folder)

    facts, before = train_once(run, trained, partial(save_encoder, encoder, run.dir / "model"))
    if before:
        return model.load_saved(run.dir / "model", *encoder.devices), facts
    return encoder, facts
