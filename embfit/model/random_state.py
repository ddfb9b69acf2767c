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
