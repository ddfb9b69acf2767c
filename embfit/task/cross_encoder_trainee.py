"""A cross-encoder in a fine-tuning: measured by how it reranks the documents of a first stage."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np

from embfit.evaluator.reranking import rerank
from embfit.evaluator.systems import EvaluationContext
from embfit.evaluator.systems.reranked import reranking_on_dev
from embfit.model import CrossEncoder, EncoderChoice, save_cross_encoder, score_pairs
from embfit.model.pretrained_cross_encoder import PretrainedCrossEncoder
from embfit.model.teacher import FOLDS, write_assignment
from embfit.records import Evaluation, Report, TrainingSet
from embfit.report.model_card import write_card
from embfit.run.folder import RunFolder
from embfit.task.protocols import ListLoss
from embfit.task.reporting import Usage
from embfit.task.train_once import train_once
from embfit.task.trainee import Fitting, Measured
from embfit.training import Fit, ListTraining
from embfit.training.folds import folds_of
from embfit.training.ranks.units import check_shardable
from embfit.type_hints import ChosenBy

log = logging.getLogger(__name__)

FitRanker: TypeAlias = Callable[[CrossEncoder, TrainingSet, Path], Fit]
"""Trains a cross-encoder in place, on a training set, keeping checkpoints in a folder."""


@dataclass(frozen=True)
class CrossEncoderTrainee:
    """A cross-encoder, compared with the first stage's ranking that it reranks.

    Args:
        model: the model that becomes the cross-encoder, and the first stage.
        loss: the loss on its scores.
        training: the settings of the training on lists.
    """

    model: Annotated[PretrainedCrossEncoder, ChosenBy("model=cross-encoder")]
    loss: ListLoss
    training: Annotated[ListTraining, ChosenBy("training=lists")]

    @property
    def first_stage(self) -> EncoderChoice:
        """The encoder whose documents are reranked, unless another system is configured."""
        return self.model.first_stage

    @property
    def base_system(self) -> str:
        """The system whose documents are reranked."""
        return self.model.candidates

    @property
    def fuses_with_words(self) -> bool:
        """A cross-encoder does not search, so it is not fused with BM25."""
        return False

    @property
    def usage(self) -> Usage:
        """Use it as the teacher of an encoder, on the same documents."""
        return Usage("experiment=distill", "miner.model", ("data", "store"))

    def load(self, context: EvaluationContext, sharded: bool) -> CrossEncoder:
        """Load the model from which training starts.

        Raises:
            UserError: the model cannot be loaded, or cannot be sharded.
        """
        ranker = self.model.load(context.devices[0])
        if sharded:
            check_shardable(ranker.backbone)
        return ranker

    def count_truncated(self, ranker: CrossEncoder, context: EvaluationContext) -> Mapping[str, int]:
        """Return nothing, because truncation depends on the pair."""
        return {}

    def measure_before(self, ranker: CrossEncoder, contexts: Sequence[EvaluationContext]) -> Mapping[str, Measured]:
        """Measure the first stage, and the untrained cross-encoder if its head is already trained."""
        untuned = {"untuned": self._reranked("untuned", ranker, contexts)} if ranker.trained else {}
        return {"base": list(map(self._found, contexts)), **untuned}

    def train(self, ranker: CrossEncoder, fitting: Fitting) -> tuple[CrossEncoder, Mapping[str, Any]]:
        """Train the cross-encoder in place and save it, or read the one that an interrupted run had saved.

        With `training.folds`, a further cross-encoder is trained for each fold of the queries.
        """
        training, examples, run, dev = self.training, fitting.training_set, fitting.run, fitting.dev
        folds = None if training.folds is None else folds_of(examples, training.folds, training.seed)
        validate = None if dev is None else reranking_on_dev(dev, self.model.candidates, self.model.dev_depth)

        def fit(ranker: CrossEncoder, training_set: TrainingSet, folder: Path) -> Fit:
            return training.fit(ranker, self.loss, training_set, validate, fitting.trainer, fitting.store, folder)

        with run.stage("train"):
            ranker, facts = _train(ranker, self.model, fit, examples, run)
        if folds is not None:
            with run.stage("train folds"):
                _train_folds(folds, partial(self.model.load, str(ranker.device)), fit, examples, run)
        return ranker, facts

    def measure_tuned(self, ranker: CrossEncoder, contexts: Sequence[EvaluationContext]) -> Measured:
        """Measure the first stage's rankings after reranking."""
        return self._reranked("tuned", ranker, contexts)

    def write_card(self, report: Report, run: RunFolder) -> None:
        """Write the model's card into its folder."""
        write_card(run.dir / "model", self.model.start, report, run.config, "cross-encoder")

    def _found(self, context: EvaluationContext) -> Evaluation:
        """Return the first stage's evaluation on one split; the context measures it once."""
        return replace(context.evaluation(self.model.candidates), system="base")

    def _reranked(self, name: str, ranker: CrossEncoder, contexts: Sequence[EvaluationContext]) -> Measured:
        """Measure the reranked rankings of the first stage, for each split."""
        evaluations = []
        for context in contexts:
            first = self._found(context)
            started = time.monotonic()
            score = partial(score_pairs, ranker, context.collection, store=context.store, label="reranking")
            ranking = rerank(first.ranking, context.collection, self.model.depth, score)
            facts = {"reranked": self.model.depth, "seconds": round(time.monotonic() - started, 3)}
            evaluations.append(context.judge(name, ranking, facts))
        return evaluations


def _train(
    ranker: CrossEncoder, model: PretrainedCrossEncoder, fit: FitRanker, training_set: TrainingSet, run: RunFolder
) -> tuple[CrossEncoder, Mapping[str, Any]]:
    """Train and save the cross-encoder, or read the one that an interrupted run had saved."""
    folder = run.dir / "model"
    facts, was_trained = train_once(
        run, partial(fit, ranker, training_set), partial(save_cross_encoder, ranker, folder)
    )
    _warn_of_chance(ranker, facts, "the cross-encoder")
    return (model.load_saved(folder, str(ranker.device)) if was_trained else ranker), facts


def _train_folds(
    folds: np.ndarray, fresh: Callable[[], CrossEncoder], fit: FitRanker, training_set: TrainingSet, run: RunFolder
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


def _warn_of_chance(ranker: CrossEncoder, facts: Mapping[str, Any], name: str) -> None:
    """Warn if no trained step was better on dev than the random head, so that the random head was kept."""
    if not ranker.trained and facts["kept_step"] == 0:
        log.warning("%s has learned nothing and scores at random: give it more pairs, epochs or a higher rate", name)
