"""Tensors sent to a device behind what it computes already: nothing waits for it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, without waiting for what the device does where the tensor is on the CPU.

    A GPU copies from pinned memory while the host continues; from any other memory the host waits for it.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
