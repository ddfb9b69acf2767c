"""An encoder in a fine-tuning, with one vector for each text or with several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from embfit.evaluator.systems import EvaluationContext, evaluate_encoder
from embfit.evaluator.validation import dev_with_queries_changed, validate
from embfit.model import BiEncoder, Encoder, EncoderChoice, encoder_at, frozen, save_encoder
from embfit.records import Report
from embfit.report.model_card import write_card
from embfit.run.folder import RunFolder
from embfit.task import data_facts
from embfit.task.protocols import EmbeddingLoss
from embfit.task.reporting import Usage
from embfit.task.train_once import train_once
from embfit.task.trainee import Fitting, Measured
from embfit.training import Fit, Training
from embfit.training.query_adapter import fit_query_adapter
from embfit.training.ranks.units import check_shardable


@dataclass(frozen=True)
class EncoderTrainee:
    """An encoder, compared with itself before training.

    Args:
        model: the encoder, and which of its weights are trained.
        loss: the loss on its vectors.
        training: the settings of the training.
    """

    model: EncoderChoice
    loss: EmbeddingLoss
    training: Training

    @property
    def first_stage(self) -> EncoderChoice:
        """The encoder itself."""
        return self.model

    @property
    def base_system(self) -> str:
        """The encoder itself, before training."""
        return "base"

    @property
    def fuses_with_words(self) -> bool:
        """An encoder searches all documents, so it can be fused with BM25."""
        return True

    @property
    def usage(self) -> Usage:
        """Use it for searching the same documents."""
        return Usage("task=search query='...'", "tuned", ("data", "model", "experiment", "store"))

    def load(self, context: EvaluationContext, sharded: bool) -> Encoder:
        """Load the encoder.

        Raises:
            ConfigError: the loss cannot train it.
            UserError: the encoder cannot be loaded, lacks the parts to be trained, or cannot be sharded.
        """
        encoder = context.encoder
        data_facts.warn_of_language(encoder, context.collection, context.store)
        self.model.check(encoder)
        self.training.check_loss(encoder, self.loss)
        if sharded and not self.model.adapts_queries.rank:
            check_shardable(encoder.backbone)
        return encoder

    def count_truncated(self, encoder: Encoder, context: EvaluationContext) -> Mapping[str, int]:
        """Return how many documents and queries exceed the encoder's length, and log it."""
        return data_facts.count_truncated(encoder, context.collection, context.store)

    def measure_before(self, encoder: Encoder, contexts: Sequence[EvaluationContext]) -> Mapping[str, Measured]:
        """Measure the encoder before training."""
        return {"base": [evaluate_encoder("base", encoder, context) for context in contexts]}

    def train(self, encoder: Encoder, fitting: Fitting) -> tuple[Encoder, Mapping[str, Any]]:
        """Train the encoder in place and save it, or read the one that an interrupted run had saved."""
        run, dev, examples = fitting.run, fitting.dev, fitting.training_set
        best = None if dev is None else partial(validate, dev.judging, collection=dev.collection)

        def fit(folder: Path) -> Fit:
            if isinstance(encoder, BiEncoder) and self.model.adapts_queries.rank:
                with frozen(encoder):
                    return self._fit_query_adapter(encoder, fitting)
            with self.model.trainable(encoder):
                return self.training.fit(
                    encoder, self.loss, examples, best, fitting.trainer, fitting.store, folder, remine=fitting.remine
                )

        with run.stage("train"):
            folder = run.dir / "model"
            found, was_trained = train_once(run, fit, partial(save_encoder, encoder, folder))
            if not was_trained:
                return encoder, found
            return encoder_at(str(folder), self.model).load(*encoder.devices), found

    def _fit_query_adapter(self, encoder: BiEncoder, fitting: Fitting) -> Fit:
        dev, examples, store = fitting.dev, fitting.training_set, fitting.store
        measure = None if dev is None else dev_with_queries_changed(dev.judging, encoder, dev.collection, store)
        settings = self.model.adapts_queries
        return fit_query_adapter(encoder, self.loss, examples, settings, self.training, measure, store)

    def measure_tuned(self, encoder: Encoder, contexts: Sequence[EvaluationContext]) -> Measured:
        """Measure the trained encoder."""
        return [evaluate_encoder("tuned", encoder, context) for context in contexts]

    def write_card(self, report: Report, run: RunFolder) -> None:
        """Write the model's card into its folder."""
        write_card(run.dir / "model", str(self.model.path), report, run.config, self.model.kind)
