"""Compares the runs of a cross-validation, query by query, for the tables of `defaults.py` and `negatives.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

Run = Mapping[str, Any]
SIZE = ("collection", "queries", "documents", "max_length", "bf16")


def groups(runs: Iterable[Run], settings: Collection[str]) -> dict[tuple[Any, ...], list[Run]]:
    """Return the runs of some settings together that only folds and seeds tell apart."""
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run["setting"] in settings:
            found.setdefault((*_size(run), run["setting"], run["cross_encoder"]), []).append(run)
    return found


def size(run: Run) -> str:
    """Return what was trained on, how much of it and in which precision, as a table says it."""
    name, queries, documents, length, bf16 = _size(run)
    precision = "" if bf16 is None else f", {'bf16' if bf16 else 'fp32'}"  # an old run does not say
    return f"{name}, {queries or 'all'} queries, {documents:,} documents, {length} tokens{precision}"


def over(runs: Iterable[Run], baselines: Iterable[Run]) -> list[tuple[Run, np.ndarray]]:
    """Return each run with how far its queries are above the baseline of the same fold and seed.

    Runs whose baseline was not run are left out.
    """
    before = {_place(run): run["tuned"] for run in baselines}
    return [
        (run, np.array([value - before[_place(run)][query] for query, value in run["tuned"].items()]))
        for run in runs
        if _place(run) in before
    ]


def values(runs: Iterable[Run], system: str) -> np.ndarray:
    """Return what `base` or `tuned` reached on each query of some runs."""
    return np.array([value for run in runs for value in run[system].values()])


def _size(run: Run) -> tuple[Any, ...]:
    return tuple(run.get(name) for name in SIZE)


def _place(run: Run) -> tuple[Any, ...]:
    return (run["fold"], run["seed"], *_size(run))
