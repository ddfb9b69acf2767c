"""What differs between two runs: configuration, data, versions, results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from embfit.compose.explain import headed
from embfit.compose.value_origins import leaves
from embfit.compose.values import shown
from embfit.evaluator.significance import bootstrap_interval, randomisation_p
from embfit.report.formatting import certainty
from embfit.run.record import RunRecord

SAMPLES = 10_000  # for the bootstrap and the randomisation test
ABSENT = "-"
NO_VERSIONS = ("overrides", "executable", "directory", "started", "resumed")  # keys of `versions.json` to leave out
OWN = ("run.dir", "resume")  # keys that differ between any two runs


def differences(a: RunRecord, b: RunRecord) -> Iterator[str]:
    """Yield the sections of the comparison as text, each with a heading."""
    yield headed("configuration", _configuration(a, b))
    yield headed("data", _changed(dict(leaves(a.report.get("data", {}))), dict(leaves(b.report.get("data", {})))))
    yield headed("versions", _changed(_flat_versions(a), _flat_versions(b)))
    yield headed("results", list(_results(a.report, b.report)))


def _configuration(a: RunRecord, b: RunRecord) -> list[tuple[str, ...]]:
    first, second = (dict(_settings(run)) for run in (a, b))
    rows: list[tuple[str, ...]] = []
    for key, before, after in _changed(first, second):
        places = [run.provenance["values"].get(key, {}).get("source", ABSENT) for run in (a, b)]
        rows.append((key, before, after, " → ".join(dict.fromkeys(places))))
    return rows


def _settings(run: RunRecord) -> Iterator[tuple[str, Any]]:
    """Yield the settings without those that name the run's own folder."""
    folder = str(run.config["run"]["dir"])
    for key, value in leaves(run.config):
        if key not in OWN and not (isinstance(value, str) and (value == folder or value.startswith(f"{folder}/"))):
            yield key, value


def _flat_versions(run: RunRecord) -> dict[str, Any]:
    """Return versions by name: those of the first attempt, and those of later attempts that differ from it."""
    attempts = [run.versions, *run.versions.get("resumed", ())]
    first, *later = (
        dict(leaves({key: value for key, value in attempt.items() if key not in NO_VERSIONS})) for attempt in attempts
    )
    for number, attempt in enumerate(later, start=2):
        first |= {f"attempt {number}: {key}": value for key, value in attempt.items() if first.get(key) != value}
    return first


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    keys = [key for key in dict.fromkeys([*a, *b]) if key not in a or key not in b or a[key] != b[key]]
    return [
        (key, shown(a[key]) if key in a else ABSENT, "→ " + (shown(b[key]) if key in b else ABSENT)) for key in keys
    ]


def _results(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield each metric that differs, of each system in both runs, with a test if the queries are the same."""
    for name, system in a.get("systems", {}).items():
        other = b.get("systems", {}).get(name)
        for metric, before in system["metrics"].items() if other else ():
            if metric in other["metrics"] and other["metrics"][metric] != before:
                after = other["metrics"][metric]
                tested = _tested(system["per_query"].get(metric, {}), other["per_query"].get(metric, {}))
                yield name, metric, f"{before:.4f}", f"→ {after:.4f}", f"{after - before:+.4f}", tested


def _tested(a: Mapping[str, float], b: Mapping[str, float]) -> str:
    if not a or a.keys() != b.keys():
        return "on other queries"
    paired = np.array([b[query] - a[query] for query in a])  # [Q]
    found = certainty(bootstrap_interval(paired, SAMPLES, seed=0))
    return f"{found}, p = {randomisation_p(paired, SAMPLES, seed=0):.4f}"
