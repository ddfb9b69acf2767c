"""How far people and filters agree about generated queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import binomtest

from embfit.review.decisions import KEEP, Decisions

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Agreement:
    """How often people decided as a filter did.

    Args:
        mark: the filter that drops the queries; None for those that all filters keep.
        decided: the number of its queries that people decided.
        agreed: the number that they decided likewise.
    """

    mark: str | None
    decided: int
    agreed: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share that agrees (Wilson 1927)."""
        found = binomtest(self.agreed, self.decided).proportion_ci(CONFIDENCE, method="wilson")
        return float(found.low), float(found.high)


def agreement(rows: Sequence[Mapping[str, Any]], decisions: Decisions) -> Iterator[Agreement]:
    """Yield the agreement about the queries that are kept, and about those of each filter, where any were decided.

    Args:
        rows: with the columns of `queries.parquet`; one for each query. Those with a `review` are left out: their marks
            say what a person decided before the run, and not what filters say.
        decisions: what people decided.
    """
    counts: dict[str | None, list[int]] = {None: [0, 0]}
    for row in rows:
        answer = decisions.answers.get(row["_id"])
        if answer is not None and not row.get("review"):
            mark = row.get("dropped_by")
            found = counts.setdefault(mark, [0, 0])
            found[0] += 1
            found[1] += (mark is None) == (answer == KEEP)
    for mark, (decided, agreed) in counts.items():
        if decided:
            yield Agreement(mark, decided, agreed)
