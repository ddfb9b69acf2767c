"""Seeds random generators for a part of a training, and restores them afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators of the CPU and of a device in this context, and restore their states afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed) if devices else torch.default_generator.manual_seed(
            seed
        )  # fork only this device's generator
        if device.type != "mps":
            yield
            return
        before = torch.mps.get_rng_state()  # fork_rng does not support Apple GPUs
        torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            torch.mps.set_rng_state(before)


def generator_states(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of the CPU's generator and of a device's, by type of device."""
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        found["mps"] = torch.mps.get_rng_state()
    return found


def restore_generators(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set the generators of the CPU and of a device to states; one of another type of device is left out."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
