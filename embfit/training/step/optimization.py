"""The optimizer: AdamW with warm-up and decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from embfit.training.step.schedule import Schedule, learning_rate_share


@dataclass(frozen=True)
class Optimization:
    """The optimizer's settings. `TrainingSettings` documents each value."""

    lr: float
    loss_lr: float
    weight_decay: float
    warmup: float
    schedule: Schedule
    clip_norm: float | None
    steps: int

    def optimizer(self, encoder: nn.Module, loss: nn.Module, device: torch.device) -> tuple[AdamW, LambdaLR]:
        """Return AdamW and its schedule.

        Biases, norms and the loss's own weights, such as a temperature, are not decayed. The loss's weights have
        their own rate: Adam changes a weight by about its rate in a step, which for a temperature would be too little.
        """
        weights = [weight for weight in encoder.parameters() if weight.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
            {"params": list(loss.parameters()), "weight_decay": 0.0, "lr": self.loss_lr},
        ]
        optimizer = AdamW([group for group in groups if group["params"]], lr=self.lr, fused=fused(device))
        shares = LambdaLR(optimizer, lambda step: learning_rate_share(step, self.steps, self.warmup, self.schedule))
        return optimizer, shares


def fused(device: torch.device) -> bool:
    """Return whether AdamW updates all weights in one kernel on a device."""
    return device.type in ("cpu", "cuda")
