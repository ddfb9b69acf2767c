"""From Lightning's settings to processes: how many ranks there are, and the device of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.accelerators import CUDAAccelerator

from embfit.errors import UserError
from embfit.world import World

TOGETHER = ("auto", "ddp")  # strategies under which several devices train
OURS = ("callbacks", "logger", "profiler", "plugins", "strategy", "devices", "num_nodes")  # not the other ranks'


@dataclass(frozen=True)
class Layout:
    """Ranks on all machines.

    Args:
        gpus: CUDA devices of this machine that are used; empty on others.
        local_size: ranks on this machine.
        size: ranks on all machines.
    """

    gpus: tuple[int, ...] = ()
    local_size: int = 1
    size: int = 1

    @property
    def beside(self) -> tuple[str, ...]:
        """Devices of this machine's ranks but the first, by PyTorch's names."""
        if self.gpus:
            return tuple(f"cuda:{gpu}" for gpu in self.gpus[1:])
        return ("cpu",) * (self.local_size - 1)

    def settings(self, trainer: Mapping[str, Any], local_rank: int) -> dict[str, Any]:
        """Return the Trainer's settings for one rank: its own device, and no strategy of Lightning's."""
        if self.size == 1:
            return dict(trainer)
        device: Any = [self.gpus[local_rank]] if self.gpus else 1
        return {**trainer, "devices": device, "strategy": "auto", "num_nodes": 1}


def plan(trainer: Mapping[str, Any], world: World | None) -> Layout:
    """Read how many ranks a Trainer's settings ask for.

    Args:
        trainer: `accelerator`, `devices`, `strategy` and `num_nodes` as Lightning takes them.
        world: what torchrun or SLURM started, if one of them did.

    Raises:
        UserError: several devices under a strategy that cannot train here, or not as many ranks as were started.
    """
    gpus, devices = _devices(trainer.get("accelerator", "auto"), trainer.get("devices", "auto"))
    nodes = int(trainer.get("num_nodes", 1))
    size = devices * nodes
    strategy = trainer.get("strategy", "auto")
    if size > 1 and strategy not in TOGETHER:
        raise UserError(
            f"trainer.strategy={strategy} cannot train here: ranks encode different numbers of micro-batches, so they "
            "make different numbers of backward passes; set trainer.strategy=ddp"
        )
    if world is not None and world.size != size:
        raise UserError(
            f"{world.size} processes were started, and trainer.devices={trainer.get('devices', 'auto')} on "
            f"trainer.num_nodes={nodes} makes {size}; make them equal (trainer=ddp, trainer.devices=PROCESSES_PER_NODE)"
        )
    if world is None and nodes > 1:
        raise UserError(
            f"trainer.num_nodes={nodes}: start embfit on every node with torchrun or srun (docs/trainer.md)"
        )
    return Layout(gpus if size > 1 else (), devices, size)


def _devices(accelerator: str, devices: Any) -> tuple[tuple[int, ...], int]:
    """Return the CUDA devices used, and how many devices of any kind."""
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        found = CUDAAccelerator.parse_devices(-1 if devices == "auto" else devices) or []
        return tuple(found), len(found)
    alone = accelerator == "mps" or (accelerator in ("gpu", "auto") and torch.backends.mps.is_available())
    return (), int(devices) if str(devices).isdigit() and not alone else 1
