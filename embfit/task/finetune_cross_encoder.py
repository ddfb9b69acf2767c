"""`task=finetune model=cross-encoder`: a cross-encoder of one's own, and how much better it orders what was found."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from torch import nn

from embfit.data.held_out import cut_folds
from embfit.errors import ConfigError, UserError
from embfit.evaluator import Retrieval
from embfit.evaluator.judging import judge
from embfit.evaluator.metrics import VALIDATION_METRIC
from embfit.evaluator.reranking import pairs_of, rerank
from embfit.evaluator.systems import EvaluationContext, evaluate_bm25
from embfit.model import CrossEncoder, save_cross_encoder, score_pairs
from embfit.model.pretrained_cross_encoder import PretrainedCrossEncoder
from embfit.model.teacher import FOLDS, write_assignment
from embfit.records import Evaluation, Report, TrainingSet
from embfit.report import print_table, write_report
from embfit.report.model_card import write_card
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.closing import where_things_are
from embfit.task.facts import can_validate, describe, warn_of_sources
from embfit.task.parts import Data, Miner
from embfit.task.train_once import train_once
from embfit.training import Fit, ListTraining, Training
from embfit.training.ranks.layout import layout_of

if TYPE_CHECKING:
    import pytorch_lightning as pl

log = logging.getLogger(__name__)

LARGEST_FOLD = 1.5  # times its share of the queries, from which on it is told

Fitting: TypeAlias = Callable[[CrossEncoder, TrainingSet, Path], Fit]
"""Trains a cross-encoder in place, on a training set, keeping checkpoints in a folder."""


def finetune_cross_encoder(
    data: Data,
    model: PretrainedCrossEncoder,
    miner: Miner,
    loss: nn.Module,
    training: Training | ListTraining,
    trainer: partial[pl.Trainer],
    evaluator: Retrieval,
    store: Store,
    run: RunFolder,
) -> Report:
    """Mine lists, train on them, and compare the first stage with what reranking makes of it.

    Raises:
        ConfigError: training is that of a bi-encoder.
    """
    if not isinstance(training, ListTraining):
        raise ConfigError("model=cross-encoder is trained on lists; leave training out, or set training=lists")
    layout = layout_of(trainer)
    with run.stage("load data"):
        collection = data.load(store)
        evaluator.check_splits(collection)
        warn_of_sources(collection, evaluator.splits)
        validating = can_validate(collection, evaluator.dev_split)
    context = evaluator.context(collection, store, model.first_stage, layout.devices)
    contexts = [context.on(split) for split in evaluator.splits]
    with run.stage("load model"):
        ranker = model.load(layout.first)
    with run.stage("evaluate base"):
        first = [replace(context.evaluation(model.candidates), system="base") for context in contexts]
        untuned = _reranked("untuned", first, ranker, model.depth, contexts) if ranker.trained else []
        words = evaluator.bm25 and model.candidates != "bm25"
        bm25 = [evaluate_bm25(one) for one in contexts] if words else []
    with run.stage("mine negatives"):
        training_set = miner.mine(collection, context.encoder, store)
        folds = None if training.folds is None else folds_of(training_set, training.folds, training.seed)
    with run.stage("train"):
        dev = context.on(evaluator.dev_split)
        validate = _validation(dev, model.candidates, model.dev_depth) if validating else None
        fit = partial(_fit, training, loss, trainer, validate)
        ranker, facts = _train(ranker, model, fit, training_set, run)
    if folds is not None:
        with run.stage("train folds"):
            _train_folds(folds, partial(model.load, layout.first), fit, training_set, run)
    with run.stage("evaluate tuned"):
        tuned = _reranked("tuned", first, ranker, model.depth, contexts)
    with run.stage("report"):
        evaluations = [found[0] for found in (first, tuned, untuned, bm25) if found]
        production = [one for found in (first, tuned, untuned, bm25) for one in found[1:]]
        others = [one for one in evaluations if one is not tuned[0]]
        report = Report(
            task="finetune",
            evaluations=evaluations,
            comparisons=[found for other in others for found in evaluator.compare(other, tuned[0])],
            training=facts,
            mining=training_set.facts,
            data=describe(collection),
            timings=run.timings,
            sections=evaluator.gap(evaluations, production, collection),
            production=production,
        )
        write_report(report, run.dir, run.config, run.origins, collection, run.command)
        write_card(run.dir / "model", model.start, report, run.config, cross_encoder=True)
    print_table(report)
    print(where_things_are(run, "experiment=distill miner.model={}", ("data", "store")))
    return report


def _fit(
    training: ListTraining,
    loss: nn.Module,
    trainer: partial[pl.Trainer],
    validate: Callable[[CrossEncoder], Mapping[str, float]] | None,
    ranker: CrossEncoder,
    training_set: TrainingSet,
    folder: Path,
) -> Fit:
    return training.fit(ranker, loss, training_set, validate, trainer, folder)


def _train(
    ranker: CrossEncoder, model: PretrainedCrossEncoder, fit: Fitting, training_set: TrainingSet, run: RunFolder
) -> tuple[CrossEncoder, Mapping[str, Any]]:
    """Train and save the cross-encoder, or take what an interrupted run had saved already."""
    folder = run.dir / "model"
    facts, before = train_once(run, partial(fit, ranker, training_set), partial(save_cross_encoder, ranker, folder))
    _warn_of_chance(ranker, facts, "the cross-encoder")
    return (model.load_saved(folder, str(ranker.device)) if before else ranker), facts


def _train_folds(
    folds: np.ndarray, fresh: Callable[[], CrossEncoder], fit: Fitting, training_set: TrainingSet, run: RunFolder
) -> None:
    """Train one cross-encoder for each fold, on the other folds' queries, and save them in the model's folder."""
    rows, count = training_set.rows, int(folds.max()) + 1
    folder = run.dir / "model" / FOLDS
    write_assignment(folder, training_set.collection.query_texts(rows["query"][:]), folds, count)
    for fold in range(count):
        ranker = fresh()
        others = replace(training_set, rows=rows.select(np.flatnonzero(folds != fold)))
        save = partial(save_cross_encoder, ranker, folder / str(fold))
        facts, _ = train_once(run, partial(fit, ranker, others), save, f"fold-{fold}")
        _warn_of_chance(ranker, facts, f"the cross-encoder of fold {fold}")


def folds_of(training_set: TrainingSet, count: int, seed: int) -> np.ndarray:
    """Return the fold of each example ([N]), cut by document; warn where so much hangs together that one is large.

    Documents of the same text are one. No fold is empty: there are fewer where fewer groups of queries are.

    Raises:
        UserError: all queries hang together, so none can be left out without the others.
    """
    rows, copies = training_set.rows, training_set.collection.document_copies
    queries = list(map(str, rows["query"][:]))
    positives = (copies[documents].tolist() for documents in rows["positives"][:])
    fold_of = cut_folds(dict(zip(queries, positives, strict=True)), count, seed)
    folds = np.array([fold_of[query] for query in queries])
    largest = int(np.bincount(folds).max())
    if largest == len(folds):
        raise UserError(
            f"training.folds={count}: all {len(folds)} queries hang together through documents that are relevant to "
            "several of them, so none can be kept out of a training; set training.folds=null"
        )
    if largest > LARGEST_FOLD * len(folds) / count:
        log.warning(
            "%d of %d queries hang together through their documents and are one of %d folds: the cross-encoder that "
            "scores them is trained on the other %d alone",
            largest,
            len(folds),
            count,
            len(folds) - largest,
        )
    return folds


def _warn_of_chance(ranker: CrossEncoder, facts: Mapping[str, Any], name: str) -> None:
    """Warn where nothing was better on the dev split than a head drawn at random, so that this is what was kept."""
    if not ranker.trained and facts["best_step"] == 0:
        log.warning("%s has learnt nothing and scores at random: give it more pairs, epochs or a higher rate", name)


def _reranked(
    name: str, first: Sequence[Evaluation], ranker: CrossEncoder, top: int, contexts: Sequence[EvaluationContext]
) -> list[Evaluation]:
    """Measure what a cross-encoder makes of a first stage's rankings, one of each split."""
    evaluations = []
    for context, base in zip(contexts, first, strict=True):
        started = time.monotonic()
        score = partial(score_pairs, ranker, context.collection, store=context.store, label="reranking")
        ranking = rerank(base.ranking, context.collection, top, score)
        facts = {"reranked": top, "seconds": round(time.monotonic() - started, 3)}
        evaluations.append(context.judge(name, ranking, facts))
    return evaluations


def _validation(context: EvaluationContext, candidates: str, top: int) -> Callable[[CrossEncoder], dict[str, float]]:
    """Return what measures a cross-encoder on the context's split, its weights being others in each call."""
    collection, ranking = context.collection, context.evaluation(candidates).ranking
    rows = pairs_of(ranking, collection, top)
    queries, query_places = np.unique(rows[:, 0], return_inverse=True)
    documents, document_places = np.unique(rows[:, 1], return_inverse=True)
    places = np.stack([query_places.reshape(-1), document_places.reshape(-1)], axis=1)
    metrics = [*dict.fromkeys([*context.judging.metrics, VALIDATION_METRIC])]

    def validate(ranker: CrossEncoder) -> dict[str, float]:
        asked = ranker.tokenize(collection.query_texts(queries.tolist()))
        read = ranker.tokenize(collection.document_texts(documents.tolist()))

        def score(_: np.ndarray) -> np.ndarray:
            return ranker.score_tokens(ranker.pairs(asked, read, places))

        found = rerank(ranking, collection, top, score)
        return dict(judge("validation", collection, context.split, found, metrics).metrics)

    return validate
