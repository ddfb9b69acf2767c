"""Copies tensors to a device asynchronously, behind the work that is queued there."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; copying from the CPU does not wait for the device's queued work.

    A GPU copies from pinned memory while the host continues; from any other memory the host waits for it.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
