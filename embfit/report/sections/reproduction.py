"""How to run it again: the command, the software, and each value of the configuration with who wrote it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from embfit.compose.value_origins import COMMAND_LINE
from embfit.report.subject import Subject

PLACE = 130

PACKAGES = ("torch", "transformers", "pytorch-lightning", "faiss-cpu", "bm25s", "numpy")


@dataclass(frozen=True)
class Value:
    """A line of the configuration.

    Args:
        key: of the value, or the group that was chosen for.
        value: as JSON.
        source: where it was written; with what was written there if that stands for another value.
        overrode: what it took the place of, latest first.
        is_chosen: whether this run's command line says it.
    """

    key: str
    value: str
    source: str
    overrode: list[str]
    is_chosen: bool


def section(subject: Subject) -> dict[str, Any]:
    """Return the command, the versions and the table of values."""
    record = subject.origins.record(subject.config)
    values = list(_values(record["values"]))
    changed = [value for value in values if _is_change(record["values"][value.key])]
    return {
        "title": "How to reproduce",
        "command": _command(subject),
        "has_systems": bool(subject.systems),
        "versions": list(_versions(subject.versions)),
        "choices": list(_values(record["choices"])),
        "changed": changed,
        "values": values,
    }


def _is_change(entry: Mapping[str, Any]) -> bool:
    """Tell whether a value is another one than its default: what a choice inherits from its own group is none."""
    *_, default = entry.get("overrode") or [None]
    if default is None:
        return bool(entry["source"] == COMMAND_LINE)
    if entry.get("written", entry["value"]) == default["value"]:
        return False
    return _folder(entry["source"]) != _folder(default["source"])


def _folder(source: str) -> str:
    return source.rpartition("/")[0]


def _command(subject: Subject) -> str:
    """Return what was typed when the run began: the command that resumes a run says only where it is."""
    overrides = subject.versions.get("overrides")
    return subject.command if overrides is None else shlex.join(["python", "-m", "embfit", *overrides])


def _values(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[Value]:
    for key, entry in entries.items():
        written = f" as {entry['written']}" if "written" in entry else ""
        yield Value(
            key,
            _json(entry["value"]),
            f"{entry['source']}{written}",
            [f"{_json(other['value'])} in {other['source']}" for other in entry.get("overrode", ())],
            entry["source"] == COMMAND_LINE,
        )


def _versions(versions: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not versions:
        return
    yield "embfit", ", ".join([versions["embfit"], *_commit(versions.get("embfit_git"))])
    for commit in _commit(versions.get("directory_git")):
        yield "working directory", commit
    yield "Python", versions["python"]
    for name in PACKAGES:
        if name in versions["packages"]:
            yield name, versions["packages"][name]
    yield "machine", versions["platform"]


def _commit(git: Mapping[str, Any] | None) -> list[str]:
    """Say at which commit a repository was; nothing where there was none."""
    return [] if git is None else [f"commit {git['commit'][:12]}{'' if git['clean'] else ' with changes'}"]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
