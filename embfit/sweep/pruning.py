"""Ends a training of a search that the others have left behind, by Optuna's median rule (Golovin et al. 2017, Vizier).

Added to the trainer's callbacks of each job. The jobs know of each other through the study's file alone, so it is one
whether they run one after another, side by side, or on several machines with one disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from embfit.errors import Pruned
from embfit.sweep.search import NAME, storage
from embfit.training.fit.validation import Validation


class Pruning(pl.Callback):
    """Reports each validation, and stops the training where the median of the other jobs is better.

    Validations are counted, not steps, so that jobs of different batch sizes can be compared. What a training had
    reached when it was pruned is in its folder, and `resume=` goes on with it to its end.

    Args:
        study: Optuna's SQLite file.
        number: of the job, which is the trial's.
        metric: of the validation.
        after: validations of a training before it can be pruned.
        startup: jobs that must have ended before any is pruned.
    """

    def __init__(self, study: str, number: int, metric: str, after: int = 1, startup: int = 5) -> None:
        self.study = Path(study)
        self.number = number
        self.metric = metric
        self.after = after
        self.startup = startup
        self.reason: str | None = None
        self._trial: Any = None
        self._reported = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the job's trial; one that has ended already (the run is resumed by hand) is left alone."""
        import optuna

        pruner = optuna.pruners.MedianPruner(n_startup_trials=self.startup, n_warmup_steps=self.after + 1)
        study = optuna.load_study(study_name=NAME, storage=storage(self.study), pruner=pruner)
        frozen = study.trials[self.number]
        if not frozen.state.is_finished():
            self._trial = optuna.trial.Trial(study, frozen._trial_id)
            self._reported = max(frozen.intermediate_values, default=0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report what validation has measured since; it has had its turn before the trainer's own callbacks."""
        history = next((item.history for item in _callbacks(trainer) if isinstance(item, Validation)), [])
        validations = len(history) - 1  # the first one measures the weights that training starts from
        if self._trial is None or validations <= self._reported or self.metric not in history[-1]:
            return
        self._reported = validations
        self._trial.report(history[-1][self.metric], validations)
        last = trainer.should_stop or trainer.global_step >= trainer.max_steps
        if not last and self._trial.should_prune():
            value = history[-1][self.metric]
            self.reason = f"dev {self.metric} {value:.4f} at validation {validations} is worse than the jobs' median"
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the run, now that all its ranks have stopped.

        Raises:
            Pruned: it was.
        """
        if self.reason is not None:
            raise Pruned(self.reason)


def _callbacks(trainer: pl.Trainer) -> list[Any]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]  # Lightning sets it where mypy does not look
