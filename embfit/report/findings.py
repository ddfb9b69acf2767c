"""Which comparison a run is about, and what a comparison found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embfit.records import Comparison, Evaluation, Report
from embfit.report.formatting import probability

LEVEL = 0.05  # p below it is called significant


def headline(report: Report) -> Comparison | None:
    """Return the comparison that the run is about: the first one, which is of all queries in the first metric."""
    return report.comparisons[0] if report.comparisons else None


def outcome(comparison: Comparison) -> str:
    """`better`, `worse` or `no significant difference`, of `b` against `a`; by the corrected p where there is one."""
    if deciding_p(comparison) >= LEVEL:
        return "no significant difference"
    return "better" if comparison.difference > 0 else "worse"


def deciding_p(comparison: Comparison) -> float:
    """Return the p that `outcome` goes by: the corrected one where there is one."""
    return comparison.p if comparison.p_holm is None else comparison.p_holm


def evidence(comparison: Comparison, comparisons: Sequence[Comparison]) -> str:
    """`p = 0.02`, or `p = 0.11 corrected for 5 systems`, among the comparisons of a report."""
    said = f"p = {probability(deciding_p(comparison))}"
    if comparison.p_holm is None:
        return said
    kind = (comparison.a, comparison.metric, comparison.subset)
    systems = {other.b for other in comparisons if (other.a, other.metric, other.subset) == kind}
    return f"{said} corrected for {len(systems)} systems"


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


def efficient(settings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the settings of a funnel that nothing smaller equals, most bytes first."""
    best, found = -1.0, []
    for setting in sorted(settings, key=lambda setting: (setting["bytes_per_document"], setting["milliseconds"])):
        if setting["value"] > best:
            best = setting["value"]
            found.append(setting)
    return found[::-1]


def funnel_overrides(setting: Mapping[str, Any]) -> str | None:
    """Return the words of a command line that publish a funnel's setting; None without a shortlist."""
    if setting["shortlist"] is None:
        return None
    keys = ("dims", "format", "shortlist")
    return " ".join(["index=funnel", *(f"index.{key}={setting[key]}" for key in keys)])


def index_costs(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, str]]:
    """Return what each system's index takes, where it was measured, as people read it: system → column → value."""
    return {
        evaluation.system: {
            "bytes/token": "" if cost["bytes_per_token"] is None else f"{cost['bytes_per_token']:,.0f}",
            "bytes/document": f"{cost['bytes_per_document']:,.0f}",
            "index MB": f"{cost['bytes'] / 1e6:,.1f}",
            "encode ms": f"{cost['encode_ms_per_document']:,.1f}",
            "query p50": f"{cost['query_ms_p50']:,.1f}",
            "p95": f"{cost['query_ms_p95']:,.1f}",
        }
        for evaluation in evaluations
        if (cost := evaluation.facts.get("index"))
    }
