"""`report.json`: every number of a run, per query too, so that any two runs can be compared. Keys are only added."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from embfit.evaluator.metrics import mean
from embfit.index.compressed import bytes_per_document
from embfit.records import Evaluation, Report
from embfit.report.decision import decide


def contents(report: Report) -> dict[str, Any]:
    """Return a report as JSON values.

    `systems` has for each name: `split`, `metrics`, `queries` and `left_out` (counts), `subsets` (by name: `queries`
    and `metrics`), `dims` (by dimensions: `metrics` and `bytes_per_document`), `funnel` (`metric`, `settings`, `kept`
    and `cheapest`, where measured), `index` (the fields of `SearchCost`, where measured), `per_query` (by metric and
    query id) and `facts`. `comparisons` have the fields of `Comparison`. `decision` says what to do with the model that
    was trained (`action`, `headline` and `reason`); it is null where none was trained. `task`, `training`, `mining`,
    `data` and `timings` are those of the report, and each of its sections has a key of its own.
    """
    decision = decide(report)
    return {
        "task": report.task,
        "systems": {evaluation.system: _system(evaluation) for evaluation in report.evaluations},
        "comparisons": [asdict(comparison) for comparison in report.comparisons],
        "decision": None if decision is None else asdict(decision),
        "training": _plain(report.training),
        "mining": _plain(report.mining),
        "data": _plain(report.data),
        "timings": _plain(report.timings),
        **_plain(report.sections),
    }


def subset_metrics(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Return the metrics of each subset: subset name → metric → mean over its queries."""
    return {
        subset: {metric: mean(values[query] for query in queries) for metric, values in evaluation.per_query.items()}
        for subset, queries in evaluation.subsets.items()
    }


def _system(evaluation: Evaluation) -> dict[str, Any]:
    subsets = subset_metrics(evaluation)
    return {
        "split": evaluation.split,
        "metrics": dict(evaluation.metrics),
        "queries": evaluation.facts["queries"],
        "left_out": evaluation.facts["left_out"],
        "subsets": {
            subset: {"queries": len(queries), "metrics": subsets[subset]}
            for subset, queries in evaluation.subsets.items()
        },
        "dims": {
            str(dim): {"metrics": dict(cut.metrics), "bytes_per_document": bytes_per_document(dim, "float32")}
            for dim, cut in evaluation.dims.items()
        },
        "funnel": _plain(evaluation.funnel),
        **{name: _plain(value) for name, value in evaluation.facts.items() if name == "index"},
        "facts": _plain({name: value for name, value in evaluation.facts.items() if name != "index"}),
        "per_query": {metric: dict(values) for metric, values in evaluation.per_query.items()},
    }


def _plain(value: Any) -> Any:
    """Turn what tasks put into facts (NumPy numbers, paths, tuples) into JSON values; NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
