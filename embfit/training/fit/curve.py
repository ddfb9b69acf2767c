"""The training curve, in a few hundred points whatever the length of the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST = 400  # points; beyond them, neighbours are averaged
WATCHED = {"loss": "train/loss", "accuracy": "train/accuracy", "lr": "train/lr"}


class Curve:
    """Keeps loss, in-batch accuracy and learning rate; each point is the mean over a number of steps.

    At `MOST` points, each two neighbours become one, and later points are means over twice as many steps. So memory
    stays small, and a curve that is resumed from a checkpoint equals that of an uninterrupted training.
    """

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []
        self.every = 1
        self._pending: list[dict[str, float]] = []

    def watch(self, step: int, measured: Mapping[str, float]) -> None:
        """Add a step's measurements."""
        self.add({"step": float(step), **{name: measured[key] for name, key in WATCHED.items()}})

    def add(self, step: dict[str, float]) -> None:
        """Add one step: its number as `step`, and its values."""
        self._pending.append(step)
        if len(self._pending) == self.every:
            self.points.append(_joined(self._pending))
            self._pending = []
        if len(self.points) == MOST:
            self.points = [_joined(self.points[place : place + 2]) for place in range(0, MOST, 2)]
            self.every *= 2

    def state(self) -> dict[str, Any]:
        """Return the state as plain values, for `restore`."""
        return {"points": self.points, "every": self.every, "_pending": self._pending}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        vars(self).update(state)


def _joined(points: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of some points, at the last one's step."""
    means = {name: sum(point[name] for point in points) / len(points) for name in points[0]}
    return {**means, "step": points[-1]["step"]}
