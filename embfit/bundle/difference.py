"""Describes the differences between two versions: documents, model, index, quality and answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from embfit.bundle.changes import DocumentChanges, published_contents
from embfit.bundle.gates import RESAMPLES, SEED, interval_words, overlaps, read_quality
from embfit.bundle.manifest import Manifest
from embfit.evaluator.significance import bootstrap_interval, randomisation_p

Row: TypeAlias = tuple[str, ...]

NAMED = 5  # the most document ids in a list
MODEL = ("query", "document", "width", "max_length", "precision", "back_end", "source", "dims")
INDEX = ("kind", "bytes", "recall")


def differences(a: Path, first: Manifest, b: Path, second: Manifest) -> Iterator[tuple[str, list[Row]]]:
    """Yield the headings of the report's tables with their rows of cells.

    Args:
        a: the folder of a version.
        first: its manifest.
        b: the folder of the other version.
        second: its manifest.
    """
    yield "documents", list(_documents(a, first, b, second))
    yield "model", _changed(first.model, second.model, MODEL)
    yield "index", _changed(first.index, second.index, INDEX)
    ours, theirs = read_quality(a), read_quality(b)
    yield "quality", list(_quality(ours["per_query"], theirs["per_query"]))
    yield "answers", list(_answers(ours["answers"], theirs["answers"]))


def _documents(a: Path, first: Manifest, b: Path, second: Manifest) -> Iterator[Row]:
    found = DocumentChanges.between(published_contents(a, first), published_contents(b, second))
    for what, ids in (("added", found.added), ("removed", found.removed), ("changed", found.changed)):
        if ids:
            yield what, f"{len(ids):,}", ", ".join(ids[:NAMED]) + (", …" if len(ids) > NAMED else "")


def _changed(before: Any, after: Any, names: Sequence[str]) -> list[Row]:
    pairs = [(name, getattr(before, name), getattr(after, name)) for name in names]
    return [(name, _shown(old), "→ " + _shown(new)) for name, old, new in pairs if old != new]


def _shown(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text  # a fingerprint


def _quality(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Row]:
    for metric, old in before.items():
        new = after.get(metric, {})
        if old.keys() != new.keys():
            yield metric, "measured on other queries"
            continue
        differences = np.array([new[query] - old[query] for query in old])  # [Q]
        if differences.any():
            interval = bootstrap_interval(differences, RESAMPLES, SEED)
            said = ", ".join([*interval_words(interval), f"p = {randomisation_p(differences, RESAMPLES, SEED):.4f}"])
            means = (float(np.mean(list(values.values()))) for values in (old, new))
            yield metric, *(f"{mean:.4f}" for mean in means), f"{differences.mean():+.4f}", said


def _answers(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> Iterator[Row]:
    shared = before.keys() & after.keys()
    changed = [query for query in shared if list(before[query]) != list(after[query])]
    if changed:
        share = np.mean(overlaps(before, after))
        yield f"{len(changed):,} of {len(shared):,} queries", f"overlap of the first ten {share:.1%}"
