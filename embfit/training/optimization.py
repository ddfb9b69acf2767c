"""How weights move: AdamW with warm-up and decay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from embfit.training.schedule import Schedule, learning_rate_share

NO_DECAY = ("bias", "norm", "temperature")  # parameters that weight decay would only distort


@dataclass(frozen=True)
class Optimization:
    """How weights move. `Training` documents each value."""

    lr: float
    weight_decay: float
    warmup: float
    schedule: Schedule
    clip_norm: float | None
    steps: int

    def optimizer(self, module: nn.Module, device: torch.device) -> tuple[AdamW, LambdaLR]:
        """Return AdamW and its schedule; biases, norms and a learned temperature are not decayed."""
        trained = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
        groups = [
            {
                "params": [
                    weight for name, weight in trained if any(part in name.lower() for part in NO_DECAY) != decayed
                ],
                "weight_decay": self.weight_decay if decayed else 0.0,
            }
            for decayed in (True, False)
        ]
        optimizer = AdamW([group for group in groups if group["params"]], lr=self.lr, fused=fused(device))
        shares = LambdaLR(optimizer, lambda step: learning_rate_share(step, self.steps, self.warmup, self.schedule))
        return optimizer, shares


def fused(device: torch.device) -> bool:
    """Say whether AdamW has one kernel for all weights on a device."""
    return device.type in ("cpu", "cuda")
