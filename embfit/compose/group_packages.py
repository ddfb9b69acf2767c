"""Says which code the YAMLs of each group may name, and which settings belong to another group.

`_target_` names code. A group names code of its own package, `embfit.<group>`; the exceptions are listed here. For a
re-export, the module that defines the object decides. This prevents accidents; it is not a sandbox: running a pack
runs its code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

WRITERS = (
    "embfit.generator",
    "embfit.style",
    "embfit.model",
)  # styles of queries, and adapters of the models that write them

OTHER_PACKAGES = {
    "generator": WRITERS,
    "evaluation": WRITERS,  # generator@evaluation
    "miner": ("embfit.miner", "embfit.model"),  # another encoder may mine
    "teacher": ("embfit.teacher", "embfit.loss", "embfit.training"),  # it has its own loss and training
    "trainer": ("embfit.sweep.pruning", "pytorch_lightning"),
    "logger": ("embfit.logger", "pytorch_lightning.loggers"),
}

REWRITTEN: Mapping[str, Mapping[str, Any]] = {"trainer": {"callbacks": Mapping[str, Any]}}
"""Type hints of parameters that embfit rewrites before it calls the target, in the place of the target's own."""

NOT_THE_TRAINERS: Mapping[str, str | None] = {
    "max_epochs": "training.epochs",
    "min_epochs": "training.epochs",
    "max_steps": "training.steps",
    "min_steps": "training.steps",
    "limit_train_batches": "training.steps",  # alone, it would give more and shorter epochs
    "overfit_batches": "training.steps",
    "fast_dev_run": "training.steps",
    "max_time": "training.max_time",
    "gradient_clip_val": "training.clip_norm",
    "gradient_clip_algorithm": "training.clip_norm",
    "accumulate_grad_batches": "training.batch_size",
    "precision": "training.precision",
    "val_check_interval": "training.validations_per_epoch",
    "check_val_every_n_epoch": "training.validations_per_epoch",
    "limit_val_batches": "training.validations_per_epoch",
    "num_sanity_val_steps": "training.validations_per_epoch",
    "default_root_dir": "run.dir",
    "logger": "logger=NAME",
    "enable_checkpointing": None,
    "enable_progress_bar": None,
    "enable_model_summary": None,
    "reload_dataloaders_every_n_epochs": None,
}
"""Settings of Lightning's Trainer that embfit's training gives itself: the knob to turn instead, where there is one."""


def packages_of(group: str) -> tuple[str, ...]:
    """Return the modules that a group's YAMLs may name, without those of packs."""
    return OTHER_PACKAGES.get(group, (f"embfit.{group}",))


def lives_in(module: str, packages: Iterable[str]) -> bool:
    """Return whether a module is one of the packages, or inside one."""
    return any(module == place or module.startswith(f"{place}.") for place in packages)


def owned_elsewhere(path: str) -> str | None:
    """Return the remedy when a key sets on `trainer` what belongs to another group, else None."""
    group, _, name = path.partition(".")
    if group != "trainer" or name not in NOT_THE_TRAINERS:
        return None
    knob = NOT_THE_TRAINERS[name]
    return f"would be ignored, since embfit decides it; {f'set {knob} instead' if knob else 'leave it out'}"
