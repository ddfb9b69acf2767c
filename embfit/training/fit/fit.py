"""One training from start to end, whatever is trained: validations, checkpoints, the time limit, and resuming."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl

from embfit.records import DevQuality
from embfit.run.devices import Devices
from embfit.training.fit.checkpoint import Checkpoints, read_checkpoint, restore
from embfit.training.fit.curve import Curve
from embfit.training.fit.interruption import Interruption
from embfit.training.fit.loop import Job, run
from embfit.training.fit.plan import Fit, TrainingPlan
from embfit.training.fit.progress import TrainingProgress
from embfit.training.fit.time_limit import TimeLimit
from embfit.training.fit.validation import Validation, warn_of_chance
from embfit.training.ranks.launch import launch_ranks
from embfit.training.step.memory import GIGABYTE, peak_bytes
from embfit.training.step.module import TrainingModule

log = logging.getLogger(__name__)


def fit_module(
    module: TrainingModule,
    plan: TrainingPlan,
    identity: str,
    validate: Callable[[Any], DevQuality] | None,
    devices: Devices,
    trainer: Mapping[str, Any],
    folder: Path,
) -> Fit:
    """Train a module in place and leave the kept weights in its encoder.

    Args:
        module: its encoder has the kept weights (without `validate`, the last) on return.
        plan: says when to validate, to write and to stop.
        identity: identifies what is trained on; a checkpoint of another training is refused.
        validate: returns an encoder's quality on the dev split.
        devices: where the ranks compute.
        trainer: the settings of Lightning's Trainer.
        folder: holds kept weights and checkpoints; an interrupted training that left them there is resumed, and
            ends as it would have ended.

    Raises:
        UserError: the loss became NaN, or the kept weights or the checkpoint cannot be read.
        KeyboardInterrupt: Ctrl-C; a checkpoint is in `folder`.
    """
    steps = plan.steps
    points = _validation_steps(steps, plan.per_epoch, plan.validations_per_epoch)
    validation = Validation(validate, points, plan.patience, plan.min_gain, folder) if validate else None
    curve = Curve()
    start = read_checkpoint(folder, identity)
    clock = TimeLimit(plan.limit, start.seconds if start else 0.0)
    if start is not None:
        log.info("resuming after step %d", start.step)
        restore(module, start, validation, curve)
        start = replace(start, weights={})  # the module has them, and every rank gets the rest
    written = Checkpoints(folder, identity, points, plan.checkpoint_every, validation, curve, clock.elapsed)
    interruption = Interruption(written)
    settings = devices.settings(trainer, 0)
    shown = TrainingProgress(steps)
    own: list[pl.Callback | None] = [shown, clock, validation, written, interruption]
    callbacks = [callback for callback in own if callback] + (settings.pop("callbacks", None) or [])
    if start is None or not (start.step == steps or start.over):
        job = Job(module, settings, steps, folder, start)
        with launch_ranks(job, devices) as ranks, interruption.listening():
            lightning = run(job, ranks, callbacks, [curve.watch, shown.watch])  # only on the first rank
        module.to(lightning.strategy.root_device)  # Lightning leaves it on the CPU
        if interruption.asked:  # after the last step: a later run resumes from its last checkpoint
            raise KeyboardInterrupt
    spent = clock.elapsed()
    validating = validation.seconds if validation else 0.0
    if validation is not None:
        validation.restore_kept(module.encoder)
        warn_of_chance(validation.change)
    module.encoder.eval()
    return Fit(
        steps=module.steps_taken,
        epochs=module.steps_taken / plan.per_epoch,
        kept_step=validation.kept_step if validation else module.steps_taken,
        history=validation.history if validation else [],
        dev_change=validation.change if validation else None,
        curve=curve.points,
        stopped=_reason(validation, clock.reached or (start is not None and start.over)),
        seconds=spent - validating,
        validation_seconds=validating,
        pairs_per_second=module.pairs_seen / (spent - validating),
        peak_memory_gb=peak_bytes(module.encoder.device) / GIGABYTE,
    )


def _reason(validation: Validation | None, early: bool) -> Literal["finished", "plateau", "time"]:
    if validation is not None and validation.stopped_early:
        return "plateau"
    return "time" if early else "finished"


def _validation_steps(steps: int, per_epoch: int, times: int) -> list[int]:
    """Return the steps after which to validate: evenly in each epoch, and after the last step."""
    points = {round(point * per_epoch / times) for point in range(1, -(-steps * times // per_epoch) + 1)}
    return sorted({point for point in points if 0 < point < steps} | {steps})
