"""How training went, step by step, in a few hundred points whatever its length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST = 400  # points; beyond them neighbours are joined
WATCHED = {"loss": "train/loss", "accuracy": "train/accuracy", "lr": "train/lr"}


class Curve:
    """Keeps loss, in-batch accuracy and learning rate: one point for each so many steps, their mean.

    When there are `MOST` points, each two neighbours become one and later points stand for twice as many steps: memory
    stays small, and a curve that is resumed from a checkpoint is that of one uninterrupted training.
    """

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []
        self.every = 1
        self._pending: list[dict[str, float]] = []

    def watch(self, step: int, measured: Mapping[str, float]) -> None:
        """Take in what a step has measured."""
        self.add({"step": float(step), **{name: measured[key] for name, key in WATCHED.items()}})

    def add(self, step: dict[str, float]) -> None:
        """Take in one step: its number as `step`, and values."""
        self._pending.append(step)
        if len(self._pending) == self.every:
            self.points.append(_joined(self._pending))
            self._pending = []
        if len(self.points) == MOST:
            self.points = [_joined(self.points[place : place + 2]) for place in range(0, MOST, 2)]
            self.every *= 2

    def state(self) -> dict[str, Any]:
        """Return what it has seen, as plain values."""
        return {"points": self.points, "every": self.every, "_pending": self._pending}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        vars(self).update(state)


def _joined(points: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of some points, at the last one's step."""
    means = {name: sum(point[name] for point in points) / len(points) for name in points[0]}
    return {**means, "step": points[-1]["step"]}
