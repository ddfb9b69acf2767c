"""Validation on held-out queries during training: it decides which weights are kept and when a plateau ends the run.

Dev sets are small: on 80 queries the mean of nDCG@10 has a standard error of 0.03, and two steps of one training often
differ by a tenth of that. So two measurements are compared query by query, and a difference counts if its one-sided
95 % bound (Student's t) excludes zero. Of steps without a significant difference the last is kept, as it has trained on
the most examples.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from embfit.atomic_files import replacing
from embfit.errors import UserError
from embfit.evaluator.metrics import VALIDATION_METRIC
from embfit.evaluator.significance import FEWEST, t_bounds
from embfit.records import DevQuality
from embfit.training.fit.plan import DevChange
from embfit.training.step.full_state import trained_weights
from embfit.training.step.gradients import Trained
from embfit.training.step.module import TrainingModule, training_module

log = logging.getLogger(__name__)

ONE_SIDED = 0.90  # two-sided confidence whose upper bound is a one-sided 95 % bound


class Validation(pl.Callback):
    """Measures nDCG@10 before training and at given steps, keeps weights on disk and stops on a plateau.

    It keeps the last step that is not significantly worse than the step with the highest mean. So the weights before
    training are kept only if every later step is worse.

    Args:
        validate: returns an encoder's quality on the dev split.
        steps: names the optimizer steps after which to measure, ascending.
        patience: stops training after this many measurements in a row that gain nothing beyond chance; None never
            stops.
        min_gain: the nDCG@10 over the highest mean so far that counts as a gain.
        folder: holds the kept weights, `kept-STEP.safetensors`.
    """

    def __init__(
        self,
        validate: Callable[[Any], DevQuality],
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
        self.kept_step = 0
        self.seconds = 0.0
        self.stopped_early = False
        self._queries: list[list[float]] = []  # nDCG@10 of each query, one list for each measurement
        self._gained = 0  # the measurement with the last gain
        self._without_gain = 0

    @property
    def weights(self) -> Path:
        """The file of the kept weights."""
        return self.folder / f"kept-{self.kept_step}.safetensors"

    @property
    def change(self) -> DevChange | None:
        """The change on the dev split; None if the kept weights are those before training."""
        if self.kept_step == 0:
            return None
        kept = next(index for index, entry in enumerate(self.history) if entry["step"] == self.kept_step)
        differences = self._differences(kept, 0)
        return DevChange(len(differences), float(differences.mean()), t_bounds(differences))

    def state(self) -> dict[str, Any]:
        """Return the state as plain values, for `restore`."""
        return {
            "history": self.history,
            "kept_step": self.kept_step,
            "seconds": self.seconds,
            "stopped_early": self.stopped_early,
            "_queries": self._queries,
            "_gained": self._gained,
            "_without_gain": self._without_gain,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        vars(self).update(state)

    def remove_other_weights(self) -> None:
        """Remove the weights of earlier steps."""
        for path in self.folder.glob("kept-*.safetensors"):
            if path != self.weights:
                path.unlink(missing_ok=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the weights before training: the tuned model must not be worse."""
        if not self.history:
            self._measure(training_module(pl_module), 0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure at the planned steps, and when the time is over."""
        if trainer.global_step in self.steps or trainer.should_stop:
            self._measure(training_module(pl_module), trainer.global_step)
            if self.patience is not None and self._without_gain >= self.patience:
                self.stopped_early = True
                trainer.should_stop = True

    def restore_kept(self, encoder: Trained) -> None:
        """Load the kept weights.

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
                f"{self.weights}: the kept weights (step {self.kept_step}) cannot be read: {error}"
            ) from error

    def _measure(self, module: TrainingModule, step: int) -> None:
        # every step so far has been checked
        with module.between_steps(), module.full.encoder() as encoder:
            started = time.monotonic()
            found = self.validate(encoder)
            module.log_numbers(step, {f"dev/{name}": number for name, number in found.metrics.items()})
            self.history.append({"step": step, **found.metrics})
            self._queries.append(list(found.queries))
            worse_than = self._worse_than()
            if worse_than is None:
                self.kept_step = step
                _save(encoder, self.weights)
            self._count_gain()
            self.seconds += time.monotonic() - started
        log.info(
            "step %d: dev %s%s",
            step,
            ", ".join(f"{name} {value:.4f}" for name, value in found.metrics.items() if _shown(name)),
            ""
            if worse_than is None
            else f"; worse than step {worse_than} beyond chance, so step {self.kept_step} is kept",
        )

    def _worse_than(self) -> int | None:
        """Return the step than which the last measurement is significantly worse; None if there is none."""
        means = [entry[VALIDATION_METRIC] for entry in self.history]
        best = int(np.argmax(means))
        bounds = t_bounds(self._differences(len(means) - 1, best), ONE_SIDED)
        return int(self.history[best]["step"]) if bounds is not None and bounds[1] < 0 else None

    def _count_gain(self) -> None:
        """Count the measurements in a row without a significant gain."""
        last = len(self.history) - 1
        gain = self.history[last][VALIDATION_METRIC] - self.history[self._gained][VALIDATION_METRIC]
        if gain > self.min_gain:  # small gains add up, because all are compared with the last gain
            self._gained, self._without_gain = last, 0
            return
        bounds = t_bounds(self._differences(last, self._gained), ONE_SIDED)
        shown = last > 0 and bounds is not None and bounds[1] <= self.min_gain
        self._without_gain = self._without_gain + 1 if shown else 0

    def _differences(self, a: int, b: int) -> np.ndarray:
        """Return the nDCG@10 of each query ([Q]) in measurement `a` less that in `b`."""
        return np.subtract(self._queries[a], self._queries[b])


def warn_of_chance(change: DevChange | None) -> None:
    """Warn if the dev split shows no significant difference between the kept weights and those before training."""
    if change is None or (change.bounds is not None and not change.bounds[0] <= 0 <= change.bounds[1]):
        return
    shown = "" if change.bounds is None else f" ({change.bounds[0]:+.4f} to {change.bounds[1]:+.4f})"
    log.log(
        logging.WARNING if change.queries < FEWEST else logging.INFO,
        "the dev split cannot distinguish the kept weights from the model before training: %s %+.4f%s on %d queries. "
        "The trained weights are kept, because they are not worse beyond chance; more dev queries would show more",
        VALIDATION_METRIC,
        change.difference,
        shown,
        change.queries,
    )


def _shown(name: str) -> bool:
    return name == VALIDATION_METRIC or name.startswith(f"{VALIDATION_METRIC}/")


def _save(encoder: Trained, path: Path) -> None:
    with replacing(path) as temporary:
        save_file({name: weight.contiguous() for name, weight in trained_weights(encoder).items()}, temporary)
