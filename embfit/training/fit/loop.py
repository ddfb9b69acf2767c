"""Runs one process's part of a training by a Lightning Trainer."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loops.progress import _ProcessedTracker

from embfit.model.compiled import forget_compiled
from embfit.training.fit.checkpoint import Checkpoint, Continue
from embfit.training.ranks.collectives import Ranks
from embfit.training.step.metrics import Watch
from embfit.training.step.module import TrainingModule, training_module


class Lockstep(pl.Callback):
    """Starts all ranks together and ends them at the same step, which the first rank decides.

    Ranks that wait for a validation wait here, where no device's own time limit runs. Here they also gather weights and
    the optimizer's state when the first rank commands it.

    Args:
        ranks: the processes that train together.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait until the first rank has measured the weights that training starts from."""
        self._agree(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop where the first rank stops."""
        self._agree(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove this rank's shards; the other ranks lose their connection to it and end by themselves."""
        training_module(pl_module).release_shards()

    def _agree(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self.ranks.agree(trainer.should_stop, training_module(pl_module).take_part)


@dataclass(frozen=True)
class Job:
    """One training, as each of its ranks runs it.

    Args:
        module: is trained in place, together with those of the other ranks.
        settings: the settings of Lightning's Trainer, for the device of one rank.
        steps: how many optimizer steps there are, at most.
        folder: gets what Lightning may write; several ranks find their job here, so all of them must see it.
        start: the checkpoint to resume from, in which the module is already.
    """

    module: TrainingModule
    settings: Mapping[str, Any]
    steps: int
    folder: Path
    start: Checkpoint | None = None


def run(job: Job, ranks: Ranks, callbacks: Sequence[pl.Callback] = (), watchers: Sequence[Watch] = ()) -> pl.Trainer:
    """Run a training in this process, on its device.

    Args:
        job: the training.
        ranks: the processes that train together.
        callbacks: Lightning's callbacks, in the order of their calls.
        watchers: are called with what each step has measured.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    start = job.start
    job.module.begin(ranks, watchers)
    begin = [Continue(start)] if start else []
    together = [Lockstep(ranks)] if ranks.size > 1 else []  # last, because validation may stop the training
    owned: dict[str, Any] = {
        "callbacks": [*begin, *callbacks, *together],
        "max_epochs": -1,
        "max_steps": job.steps,
        "limit_train_batches": None,
        "overfit_batches": 0,
        "fast_dev_run": False,
        "precision": "32-true",  # the encoder casts by itself; weights and everything else are fp32
        "default_root_dir": job.folder,
        "reload_dataloaders_every_n_epochs": 1,  # each epoch has its own order
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    handler = signal.getsignal(signal.SIGINT)
    try:
        with _quiet_lightning():
            lightning = pl.Trainer(**{**job.settings, **owned})
            if start:
                _count_from(lightning, start)
            lightning.fit(job.module)
    except SystemExit as exit_:  # Lightning turns Ctrl-C into exit code 1
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from exit_
    finally:
        forget_compiled()  # the next trial of a sweep has another encoder
    return lightning


def _count_from(lightning: pl.Trainer, start: Checkpoint) -> None:
    """Let Lightning count steps and epochs from a checkpoint's; its own checkpoints cannot resume within an epoch."""
    steps = lightning.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total
    steps.ready = steps.completed = start.step
    epoch = start.epoch
    lightning.fit_loop.epoch_progress.current = _ProcessedTracker(
        epoch, completed=epoch, started=epoch, processed=epoch
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Hide Lightning's log lines about devices, tips and modules in evaluation mode (dropout is off)."""
    notes = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = notes.level
    notes.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            yield
    finally:
        notes.setLevel(level)
