"""Random numbers of a part of a training, drawn as if nothing had been drawn before, and leaving no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators of the CPU and of a device in this context; afterwards they are where they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed) if devices else torch.default_generator.manual_seed(seed)  # others are not forked
        if device.type != "mps":
            yield
            return
        before = torch.mps.get_rng_state()  # fork_rng knows no Apple GPU
        torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            torch.mps.set_rng_state(before)
