"""The tables of `late_interaction_quality.py`: values by seed, paired differences, and what each format keeps."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from measuring import mean_and_interval

COMPARED = (
    ("late", "single"),
    ("distilled", "single"),
    ("late + BM25", "single + BM25"),
    ("distilled + BM25", "single + BM25"),
    ("late", "single + BM25"),
    ("late over single + BM25", "single + BM25"),
    ("distilled", "late"),
)
FORMAT_COLUMNS = (
    "format",
    "bytes a token",
    "MB",
    "nDCG@10",
    "difference from float32 (95 % interval)",
    "build, CPU s",
    "recall@10",
)


def table(title: str, found: Sequence[Mapping[str, Any]], parts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the lines of three tables: values, differences, and formats."""
    systems: dict[str, dict[str, float]] = {}  # each query's mean over the seeds
    of_seeds: dict[str, list[float]] = {}
    for system in dict.fromkeys(line["system"] for line in found):
        runs = [line["values"] for line in found if line["system"] == system]
        systems[system] = {query: statistics.mean(run[query] for run in runs) for query in runs[0]}
        of_seeds[system] = [statistics.mean(run.values()) for run in runs]
    everything = {"all": list(next(iter(systems.values()))), **parts}
    titles = [f"{part}, {len(queries)}" for part, queries in everything.items()]
    yield f"\n{title}: nDCG@10"
    yield f"| | seeds | {' | '.join(titles)} |"
    yield f"|---|---|{'--:|' * len(titles)}"
    for system, values in systems.items():
        if not system.startswith("late, "):
            means = (
                f"{statistics.mean(values[query] for query in queries):.4f}"
                for queries in everything.values()
                if queries
            )
            spread = ", ".join(f"{value:.4f}" for value in of_seeds[system])
            yield f"| {system} | {spread} | {' | '.join(means)} |"
    yield f"\n{title}: differences in nDCG@10 (95 % interval)"
    yield f"| | {' | '.join(titles)} |"
    yield f"|---|{'---|' * len(titles)}"
    for after, before in COMPARED:
        if {after, before} <= systems.keys():
            cells = (_difference(systems, after, before, queries) for queries in everything.values())
            yield f"| {after} − {before} | {' | '.join(cells)} |"
    if "late, exact" not in systems:
        return
    yield f"\n{title}: formats of late"
    yield f"| {' | '.join(FORMAT_COLUMNS)} |"
    yield "|---|--:|--:|--:|---|--:|--:|"
    for system in systems:
        if system.startswith("late, ") and system != "late, exact":
            facts = [line["facts"] for line in found if line["system"] == system]
            measured = set.intersection(*(set(one) for one in facts)) - {"format"}  # an earlier version measured more
            mean = {key: statistics.mean(one[key] for one in facts) for key in measured}
            name = system.removeprefix("late, ")
            name = f"{facts[0]['format']}, centroids" if name == "candidates" else name
            change = _difference(systems, system, "late, exact", everything["all"])
            recall = f"{mean['recall_at_10']:.3f}" if "recall_at_10" in mean else ""
            yield (
                f"| {name} | {mean['bytes_per_token']:.0f} | {mean['bytes'] / 1e6:.0f} | "
                f"{statistics.mean(of_seeds[system]):.4f} | {change} | "
                f"{mean['build_cpu_seconds']:.0f} | {recall} |"
            )


def _difference(systems: Mapping[str, Mapping[str, float]], after: str, before: str, queries: Sequence[str]) -> str:
    if len(queries) < 2:
        return "–"
    return mean_and_interval(np.array([systems[after][query] - systems[before][query] for query in queries]))
