"""The devices that a run computes on, and how many processes train on all machines together.

PyTorch is imported only when devices are looked for, so that a configuration is checked without it. Lightning is never
imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embfit.errors import UserError
from embfit.run.launch_environment import LaunchEnvironment, launch_environment

TOGETHER = ("auto", "ddp", "fsdp")  # strategies that can train on several devices
ALONE = (*TOGETHER, "single_device")


@dataclass(frozen=True)
class Devices:
    """The devices of a run; training has one process, a rank, for each device.

    Args:
        all: the devices of this machine, by PyTorch's names: `cuda:1`, `mps`, `cpu`. Several times `cpu` is as many
            processes.
        nodes: how many machines there are, each with as many devices.
        sharded: whether each of several ranks keeps a shard of every weight; else each has all weights.
    """

    all: tuple[str, ...]
    nodes: int = 1
    sharded: bool = False

    @property
    def first(self) -> str:
        """The device of this machine's first rank, which also does the work that is not divided among ranks."""
        return self.all[0]

    @property
    def local_size(self) -> int:
        """The number of ranks on this machine."""
        return len(self.all)

    @property
    def size(self) -> int:
        """The number of ranks on all machines."""
        return self.local_size * self.nodes

    def settings(self, trainer: Mapping[str, Any], local_rank: int) -> dict[str, Any]:
        """Return the Trainer's settings for one rank: its own device, and no strategy of Lightning's."""
        kind, _, index = self.all[local_rank].partition(":")
        own: int | list[int] = [int(index)] if index else 1
        return {**trainer, "accelerator": kind, "devices": own, "strategy": "auto", "num_nodes": 1}


def devices_of(trainer: Mapping[str, Any]) -> Devices:
    """Return the devices that a Trainer's settings ask for, in the processes that were started.

    Raises:
        UserError: as `find_devices`.
    """
    return find_devices(trainer, launch_environment())


def find_devices(trainer: Mapping[str, Any], started: LaunchEnvironment | None) -> Devices:
    """Read how many ranks a Trainer's settings ask for, and where they compute.

    Args:
        trainer: `accelerator`, `devices`, `strategy` and `num_nodes` as Lightning takes them.
        started: what torchrun or SLURM started, if one of them did.

    Raises:
        UserError: devices that are not there, several under a strategy that cannot train here, or not as many ranks
            as were started.
    """
    asked = trainer.get("devices", "auto")
    strategy = trainer.get("strategy", "auto")
    devices = Devices(
        _on_one_machine(trainer.get("accelerator", "auto"), asked),
        int(trainer.get("num_nodes", 1)),
        sharded=strategy == "fsdp",
    )
    if strategy not in (TOGETHER if devices.size > 1 else ALONE):
        raise UserError(
            f"trainer.strategy={strategy} cannot train here: ranks encode different numbers of micro-batches, so they "
            "make different numbers of backward passes; set trainer.strategy=ddp, or fsdp, which evens them out"
        )
    if started is not None and (started.local_size, started.size) != (devices.local_size, devices.size):
        raise UserError(
            f"{started.size} processes were started, {started.local_size} on a machine, and trainer.devices={asked} on "
            f"trainer.num_nodes={devices.nodes} makes {devices.size}; make them equal (trainer=ddp, "
            "trainer.devices=PROCESSES_PER_NODE)"
        )
    if started is None and devices.nodes > 1:
        raise UserError(
            f"trainer.num_nodes={devices.nodes}: start embfit on every node with torchrun or srun (docs/trainer.md)"
        )
    return devices


def _on_one_machine(accelerator: str, asked: Any) -> tuple[str, ...]:
    """Return the devices of one machine, by PyTorch's names."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if cuda and accelerator in ("auto", "gpu", "cuda"):
        return _gpus(asked, torch.cuda.device_count())
    if mps and accelerator in ("auto", "gpu", "mps"):
        if asked in ("auto", 1, "1", [0], -1, "-1"):
            return ("mps",)
        raise UserError(f"trainer.devices={asked}: there is one Apple GPU; set trainer.devices=1")
    if accelerator in ("auto", "cpu"):
        return ("cpu",) * _processes(asked)
    raise UserError(f"trainer.accelerator={accelerator}: PyTorch finds none here; set trainer=cpu, or trainer=auto")


def _gpus(asked: Any, count: int) -> tuple[str, ...]:
    """Return the GPUs that were asked for: a number of them, their indices (`[1]`, `0,2`), or all (`auto`, -1)."""
    try:
        if asked in ("auto", -1, "-1"):
            indices = list(range(count))
        elif isinstance(asked, list | tuple) or "," in str(asked):
            named = asked if isinstance(asked, list | tuple) else str(asked).split(",")
            indices = [int(index) for index in named if str(index).strip()]
        else:
            indices = list(range(int(asked)))
    except (TypeError, ValueError):
        indices = []
    if not indices or len(set(indices)) < len(indices) or not set(indices) <= set(range(count)):
        raise UserError(
            f"trainer.devices={asked}: this machine has {count} GPUs; give a number of them, or the list of those to "
            "use, such as [0]"
        )
    return tuple(f"cuda:{index}" for index in indices)


def _processes(asked: Any) -> int:
    """Return how many processes train on the CPU."""
    number = 1 if asked == "auto" else int(asked) if str(asked).isdigit() else 0
    if number < 1:
        raise UserError(
            f"trainer.devices={asked}: training is on the CPU here, where this is a number of processes; set "
            "trainer.devices=1"
        )
    return number
