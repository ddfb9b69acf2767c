"""Ends trainings of a search that are worse than the others, by Optuna's median rule (Golovin et al. 2017, Vizier).

The callback is added to the trainer of each job. Jobs share results through the study's file only, so it works the same
whether they run one after another, side by side, or on several machines with a shared disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from embfit.errors import Pruned
from embfit.sweep.search import NAME, storage
from embfit.training.fit.validation import Validation


class Pruning(pl.Callback):
    """Reports each validation to the study, and stops the training if the median of the other jobs is better.

    Validations are counted instead of steps, so that jobs with different batch sizes can be compared. The best weights
    of a pruned training are in its folder, and `resume=` trains it to the end.

    Args:
        study: the path of Optuna's SQLite file.
        number: the job's number, which is also the trial's.
        metric: the validation metric to report.
        after: the number of validations in a training before it can be pruned.
        startup: the number of jobs that must have ended before any is pruned.
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
        """Find the job's trial; a trial that has ended already (its run is being resumed by hand) is left alone."""
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
        """Report the latest validation, which runs before the trainer's own callbacks."""
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
        """End a pruned run, after all its ranks have stopped.

        Raises:
            Pruned: the training was pruned.
        """
        if self.reason is not None:
            raise Pruned(self.reason)


def _callbacks(trainer: pl.Trainer) -> list[Any]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]  # Lightning sets it where mypy does not look
