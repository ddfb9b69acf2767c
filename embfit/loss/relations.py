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
        lexical: [Q, D] float32, BM25's scores; None where no loss asks for them.
    """

    positives: Tensor
    ignored: Tensor
    weights: Tensor
    teacher: Tensor | None = None
    lexical: Tensor | None = None

    def of(self, queries: slice) -> Relations:
        """Return those of some of the queries."""
        return self.each(lambda tensor: tensor[queries])

    def each(self, change: Callable[[Tensor], Tensor]) -> Relations:
        """Return them with every tensor changed, such as sent to a device."""
        teacher, lexical = (None if one is None else change(one) for one in (self.teacher, self.lexical))
        return Relations(change(self.positives), change(self.ignored), change(self.weights), teacher, lexical)

    def with_words(self, scores: Tensor, weight: float) -> Tensor:
        """Return scores with BM25's added, times a weight ([Q, D]); the scores as they are for a weight of 0.

        Raises:
            ValueError: there are no BM25 scores.
        """
        if weight == 0:
            return scores
        if self.lexical is None:
            raise ValueError("the loss adds BM25's scores (lexical), and the batch has none")
        return scores + weight * self.lexical
