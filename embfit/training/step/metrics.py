"""What steps measure, read when it is there: a device is never waited for within a step."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from embfit.errors import UserError

Watch: TypeAlias = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class PendingMetrics:
    """One step's numbers, on their way from the device.

    Args:
        step: the step's number, from 1.
        names: what the numbers are called.
        values: [names] the numbers, on the CPU; they are valid once `arrived` returns.
        arrived: waits for the numbers.
    """

    step: int
    names: tuple[str, ...]
    values: Tensor
    arrived: Callable[[], object]

    def numbers(self) -> dict[str, float]:
        """Wait, and return the numbers by name."""
        self.arrived()
        return dict(zip(self.names, self.values.tolist(), strict=True))


class StepMetrics:
    """A queue of steps' numbers. On a GPU the newest one stays in it until the next step has been queued behind it.

    A step's time is that from the numbers before to its own: when a device was done, not when it was asked.
    """

    def __init__(self) -> None:
        self._waiting: deque[PendingMetrics] = deque()
        self._since = time.perf_counter()

    def restart_clock(self) -> None:
        """Count the next step's time from now: what was done before is no part of it."""
        self._since = time.perf_counter()

    def put(self, step: int, measured: Mapping[str, Tensor | float], device: torch.device) -> None:
        """Send a step's scalars on their way."""
        tensors = [torch.as_tensor(value, dtype=torch.float32) for value in measured.values()]
        if device.type == "cuda":
            stacked = torch.stack([tensor.to(device, non_blocking=True) for tensor in tensors])
            values = torch.empty(stacked.shape, pin_memory=True).copy_(stacked, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not type it
            event.record()
            self._waiting.append(PendingMetrics(step, tuple(measured), values, event.synchronize))
        else:
            values = torch.stack([tensor.cpu() for tensor in tensors])
            self._waiting.append(PendingMetrics(step, tuple(measured), values, lambda: None))

    def take(self, device: torch.device, to_the_last: bool = False) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield step and numbers of what needs no waiting, with its `train/pairs` per second.

        Args:
            device: the device that measures.
            to_the_last: whether to wait for the newest, too.
        """
        kept = 1 if device.type == "cuda" and not to_the_last else 0
        while len(self._waiting) > kept:
            reading = self._waiting.popleft()
            numbers = reading.numbers()
            started, self._since = self._since, time.perf_counter()
            yield reading.step, {**numbers, "train/pairs_per_second": numbers["train/pairs"] / (self._since - started)}


def check(step: int, numbers: Mapping[str, float]) -> None:
    """Refuse a step that has no number.

    Raises:
        UserError: its loss or its gradient is not finite.
    """
    for what, key in (("loss", "train/loss"), ("gradient's norm", "train/gradient_norm")):
        if not math.isfinite(numbers[key]):
            raise UserError(
                f"the {what} is {numbers[key]} in step {step}; the weights are those of the step before.\n"
                "Lower training.lr or raise loss.temperature; training.precision=fp32 rules out rounding."
            )
