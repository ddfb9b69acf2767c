"""Which comparison a run is about, and what a comparison found."""

from __future__ import annotations

from collections.abc import Sequence

from embfit.records import Comparison, Report

LEVEL = 0.05  # p below it is called significant


def headline(report: Report) -> Comparison | None:
    """Return the comparison that the run is about: the first one, which is of all queries in the first metric."""
    return report.comparisons[0] if report.comparisons else None


def outcome(comparison: Comparison) -> str:
    """`better`, `worse` or `no significant difference`, of `b` against `a`; by the corrected p where there is one."""
    p = comparison.p if comparison.p_holm is None else comparison.p_holm
    if p >= LEVEL:
        return "no significant difference"
    return "better" if comparison.difference > 0 else "worse"


def same_pair(comparison: Comparison, other: Comparison) -> bool:
    """Tell whether two comparisons are of the same two systems."""
    return (comparison.a, comparison.b) == (other.a, other.b)


def pairs(comparisons: Sequence[Comparison]) -> list[list[Comparison]]:
    """Return the comparisons of all queries, one list of metrics for each pair of systems."""
    grouped: dict[tuple[str, str], list[Comparison]] = {}
    for found in comparisons:
        if found.subset == "all":
            grouped.setdefault((found.a, found.b), []).append(found)
    return list(grouped.values())
