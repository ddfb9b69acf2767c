"""Quality on held-out queries during training: the best weights are kept, and a plateau ends the run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from embfit.errors import UserError
from embfit.evaluator.metrics import VALIDATION_METRIC
from embfit.store import replacing
from embfit.training.step.gradients import Trained
from embfit.training.step.module import TrainingModule, trained_weights, training_module

log = logging.getLogger(__name__)


class Validation(pl.Callback):
    """Measures nDCG@10 before training and at given steps, keeps the best weights on disk and stops on a plateau.

    Args:
        validate: returns an encoder's metrics.
        steps: names the optimizer steps after which to measure, ascending.
        patience: stops training after this many measurements in a row without a gain; None never stops.
        min_gain: the nDCG@10 over the last gain that counts as one.
        folder: keeps the best weights, `best-STEP.safetensors`.
    """

    def __init__(
        self,
        validate: Callable[[Any], Mapping[str, float]],
        steps: list[int],
        patience: int | None,
        min_gain: float,
        folder: Path,
    ) -> None:
        self.validate = validate
        self.steps = set(steps)
        self.patience = patience
        self.min_gain = min_gain
        self.folder = folder
        self.history: list[dict[str, float]] = []
        self.best_step = 0
        self.best = float("-inf")
        self.gained = float("-inf")  # the value that the last gain reached
        self.seconds = 0.0
        self.stopped_early = False
        self._without_gain = 0

    @property
    def weights(self) -> Path:
        """Where the best weights are."""
        return self.folder / f"best-{self.best_step}.safetensors"

    def state(self) -> dict[str, Any]:
        """Return what it has found, as plain values."""
        return {
            "history": self.history,
            "best_step": self.best_step,
            "best": self.best,
            "gained": self.gained,
            "seconds": self.seconds,
            "stopped_early": self.stopped_early,
            "_without_gain": self._without_gain,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        vars(self).update(state)

    def forget_all_but_best(self) -> None:
        """Remove weights that were the best once."""
        for path in self.folder.glob("best-*.safetensors"):
            if path != self.weights:
                path.unlink(missing_ok=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the weights that training starts from: the tuned model must beat them."""
        if not self.history:
            self._measure(training_module(pl_module), 0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure at the steps asked for, and where the time is over."""
        if trainer.global_step in self.steps or trainer.should_stop:
            self._measure(training_module(pl_module), trainer.global_step)
            if self.patience is not None and self._without_gain >= self.patience:
                self.stopped_early = True
                trainer.should_stop = True

    def restore_best(self, encoder: Trained) -> None:
        """Load the best weights that were measured.

        Raises:
            UserError: they cannot be read back.
        """
        try:
            found = load_file(self.weights, device=str(encoder.device))
            if found.keys() != trained_weights(encoder).keys():
                raise RuntimeError("it has the weights of another model")
            encoder.load_state_dict(found, strict=False)  # what is not trained is as it was loaded
        except (OSError, RuntimeError, SafetensorError) as error:
            raise UserError(
                f"{self.weights}: the best weights (step {self.best_step}) cannot be read: {error}"
            ) from error

    def _measure(self, module: TrainingModule, step: int) -> None:
        with module.between_steps():  # what is measured has passed every step's check
            started = time.monotonic()
            metrics = dict(self.validate(module.encoder))
            value = metrics[VALIDATION_METRIC]
            module.log_numbers(step, {f"dev/{name}": number for name, number in metrics.items()})
            self.history.append({"step": step, **metrics})
            if value > self.gained + self.min_gain:  # small gains add up to one, since they leave `gained` as it is
                self.gained, self._without_gain = value, 0
            else:
                self._without_gain += 1
            if value > self.best:
                self.best, self.best_step = value, step
                _save(module.encoder, self.weights)
            self.seconds += time.monotonic() - started
        log.info(
            "step %d: dev %s %.4f%s", step, VALIDATION_METRIC, value, " (best so far)" if self.best_step == step else ""
        )


def _save(encoder: Trained, path: Path) -> None:
    with replacing(path) as temporary:
        save_file({name: weight.contiguous() for name, weight in trained_weights(encoder).items()}, temporary)
