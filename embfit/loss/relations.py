"""What the queries and documents of a batch are to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Relations:
    """Labels and masks of Q queries and D documents, by which a loss knows them.

    Args:
        positives: [Q, D] bool.
        ignored: [Q, D] bool, pairs that are neither positive nor negative.
        weights: [Q] float32, of each query.
        teacher: [Q, D] float32 scores, NaN where there is none; None without a teacher.
    """

    positives: Tensor
    ignored: Tensor
    weights: Tensor
    teacher: Tensor | None = None

    def of(self, queries: slice) -> Relations:
        """Return those of some of the queries."""
        return self.each(lambda tensor: tensor[queries])

    def each(self, change: Callable[[Tensor], Tensor]) -> Relations:
        """Return them with every tensor changed, such as sent to a device."""
        teacher = None if self.teacher is None else change(self.teacher)
        return Relations(change(self.positives), change(self.ignored), change(self.weights), teacher)
