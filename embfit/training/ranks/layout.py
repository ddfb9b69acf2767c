"""From Lightning's settings to processes: how many ranks there are, and the device of each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from embfit.errors import UserError
from embfit.run.launch_environment import LaunchEnvironment, launch_environment

if TYPE_CHECKING:
    import pytorch_lightning as pl

TOGETHER = ("auto", "ddp")  # strategies under which several devices train
ALONE = (*TOGETHER, "single_device")
OURS = ("callbacks", "logger", "profiler", "plugins", "strategy", "devices", "num_nodes")  # not the other ranks'


@dataclass(frozen=True)
class Layout:
    """Ranks on all machines.

    Args:
        devices: the device of each of this machine's ranks, by PyTorch's names: `cuda:1`, `mps`, `cpu`.
        nodes: how many machines there are, all with as many ranks.
    """

    devices: tuple[str, ...]
    nodes: int = 1

    @property
    def first(self) -> str:
        """The device of this machine's first rank, on which a task computes all else."""
        return self.devices[0]

    @property
    def local_size(self) -> int:
        """Ranks on this machine."""
        return len(self.devices)

    @property
    def size(self) -> int:
        """Ranks on all machines."""
        return self.local_size * self.nodes

    def settings(self, trainer: Mapping[str, Any], local_rank: int) -> dict[str, Any]:
        """Return the Trainer's settings for one rank: its own device, and no strategy of Lightning's."""
        device = torch.device(self.devices[local_rank])
        own = 1 if device.index is None else [device.index]
        return {**trainer, "accelerator": device.type, "devices": own, "strategy": "auto", "num_nodes": 1}


def layout_of(trainer: partial[pl.Trainer]) -> Layout:
    """Return the ranks that a task's trainer asks for, in the processes that were started."""
    return plan(trainer.keywords, launch_environment())


def plan(trainer: Mapping[str, Any], world: LaunchEnvironment | None) -> Layout:
    """Read how many ranks a Trainer's settings ask for, and where they compute.

    Args:
        trainer: `accelerator`, `devices`, `strategy` and `num_nodes` as Lightning takes them.
        world: what torchrun or SLURM started, if one of them did.

    Raises:
        UserError: devices that are not there, several under a strategy that cannot train here, or not as many ranks
            as were started.
    """
    asked = trainer.get("devices", "auto")
    layout = Layout(_devices(trainer.get("accelerator", "auto"), asked), int(trainer.get("num_nodes", 1)))
    strategy = trainer.get("strategy", "auto")
    if strategy not in (TOGETHER if layout.size > 1 else ALONE):
        raise UserError(
            f"trainer.strategy={strategy} cannot train here: ranks encode different numbers of micro-batches, so they "
            "make different numbers of backward passes; set trainer.strategy=ddp"
        )
    if world is not None and (world.local_size, world.size) != (layout.local_size, layout.size):
        raise UserError(
            f"{world.size} processes were started, {world.local_size} on a machine, and trainer.devices={asked} on "
            f"trainer.num_nodes={layout.nodes} makes {layout.size}; make them equal (trainer=ddp, "
            "trainer.devices=PROCESSES_PER_NODE)"
        )
    if world is None and layout.nodes > 1:
        raise UserError(
            f"trainer.num_nodes={layout.nodes}: start embfit on every node with torchrun or srun (docs/trainer.md)"
        )
    return layout


def _devices(accelerator: str, asked: Any) -> tuple[str, ...]:
    """Return the devices of one machine, by PyTorch's names."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if cuda and accelerator in ("auto", "gpu", "cuda"):
        return _gpus(asked)
    if mps and accelerator in ("auto", "gpu", "mps"):
        if asked in ("auto", 1, "1", [0], -1, "-1"):
            return ("mps",)
        raise UserError(f"trainer.devices={asked}: there is one Apple GPU; set trainer.devices=1")
    if accelerator in ("auto", "cpu"):
        return ("cpu",) * _processes(asked)
    raise UserError(f"trainer.accelerator={accelerator}: PyTorch finds none here; set trainer=cpu, or trainer=auto")


def _gpus(asked: Any) -> tuple[str, ...]:
    from lightning_fabric.utilities.exceptions import MisconfigurationException  # Lightning takes seconds to import
    from pytorch_lightning.accelerators import CUDAAccelerator

    found = None
    with suppress(MisconfigurationException, TypeError, ValueError):
        found = CUDAAccelerator.parse_devices(-1 if asked == "auto" else asked)
    if not found:
        raise UserError(
            f"trainer.devices={asked}: this machine has {torch.cuda.device_count()} GPUs; give a number of them, or "
            "the list of those to use, such as [0]"
        )
    return tuple(f"cuda:{gpu}" for gpu in found)


def _processes(asked: Any) -> int:
    """Return how many processes train on the CPU."""
    number = 1 if asked == "auto" else int(asked) if str(asked).isdigit() else 0
    if number < 1:
        raise UserError(
            f"trainer.devices={asked}: training is on the CPU here, where this is a number of processes; set "
            "trainer.devices=1"
        )
    return number
