"""Reads the record of a run from its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from embfit.errors import UserError, first_line
from embfit.store import CACHE_TAG

HEADLINE = "headline.json"  # the few numbers that lists of runs show, since a report may have megabytes


@dataclass(frozen=True)
class RunSummary:
    """The part of a run's record that lists of runs show.

    Args:
        dir: the run's folder.
        task: the task's name.
        status: `status.json`: `state`, `stage`, `error`, `started`, `finished`, `seconds`.
        overrides: the command line.
        headline: the first metric (`metric`), its value for each system (`systems`), and the digest of the documents
            (`corpus_sha256`); empty if nothing was evaluated.
    """

    dir: Path
    task: str
    status: Mapping[str, Any]
    overrides: Sequence[str]
    headline: Mapping[str, Any]

    @property
    def state(self) -> str:
        """The run's state: `running`, `done`, `pruned`, `failed` or `interrupted`."""
        return str(self.status["state"])


@dataclass(frozen=True)
class RunRecord:
    """The record in a run's folder.

    Args:
        dir: the folder.
        status: `status.json`: `state`, `stage`, `error`, `started`, `finished`, `seconds`.
        config: the resolved configuration.
        provenance: `choices` and `values` with their sources.
        versions: code, packages and machine; under `resumed` those of later attempts.
        report: `report.json`; empty if the run made none.
    """

    dir: Path
    status: Mapping[str, Any]
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    versions: Mapping[str, Any]
    report: Mapping[str, Any]

    @property
    def state(self) -> str:
        """The run's state: `running`, `done`, `pruned`, `failed` or `interrupted`."""
        return str(self.status["state"])

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.config["task"]["_target_"]).rpartition(".")[2]

    @property
    def headline(self) -> tuple[str, dict[str, float]] | None:
        """The first metric, and its value for each system except BM25; None if no system was evaluated."""
        metric, values = self.measured or ("", {})
        ours = {name: value for name, value in values.items() if name != "bm25"}
        return (metric, ours) if ours else None

    @property
    def measured(self) -> tuple[str, dict[str, float]] | None:
        """The first metric, and its value for each system; None if nothing was evaluated."""
        found = headline_of(self.report)
        return (found["metric"], found["systems"]) if "metric" in found else None


def read_record(folder: Path) -> RunRecord:
    """Read a run's folder.

    Raises:
        UserError: the folder is not a run's.
    """
    try:
        found = RunRecord(
            dir=folder,
            status=_json(folder / "status.json"),
            config=yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")),
            provenance=_json(folder / "provenance.json"),
            versions=_json(folder / "versions.json"),
            report=_json(folder / "report.json") if (folder / "report.json").is_file() else {},
        )
        _ = found.state, found.task, found.headline  # another program's file lacks this key
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{folder} is not the folder of a run: it has no {Path(error.filename).name}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{folder} is not the folder of a run: {first_line(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} is not the folder of a run: its files are another program's") from error
    return found


def run_folders(parent: Path) -> Iterator[Path]:
    """Yield the folders of runs in and below a folder, without searching stores."""
    for folder, inner, files in os.walk(parent):
        if CACHE_TAG in files:
            inner.clear()
        elif "status.json" in files:
            yield Path(folder)


def find_runs(parent: Path) -> list[RunSummary]:
    """Return the runs in and below a folder, ordered by start; broken ones are left out."""
    found = []
    for folder in run_folders(parent):
        with suppress(UserError):
            found.append(read_summary(folder))
    return sorted(found, key=lambda run: (run.status.get("started") or "", str(run.dir)))


def read_summary(folder: Path) -> RunSummary:
    """Read the few small files of a run that a list shows.

    Raises:
        UserError: the folder is not a run's.
    """
    try:
        provenance, versions = _json(folder / "provenance.json"), _json(folder / "versions.json")
        found = RunSummary(
            dir=folder,
            task=str(provenance["values"]["task._target_"]["value"]).rpartition(".")[2],
            status=_json(folder / "status.json"),
            overrides=[str(override) for override in versions.get("overrides", ())],
            headline=read_headline(folder),
        )
        _ = found.state  # another program's file lacks this key
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} is not the folder of a run: {error}") from error
    return found


def read_headline(folder: Path) -> dict[str, Any]:
    """Return the headline of a run's report, as `headline_of`; empty without a report.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: the report cannot be read.
    """
    if (folder / HEADLINE).is_file():
        return dict(_json(folder / HEADLINE))
    return headline_of(_json(folder / "report.json")) if (folder / "report.json").is_file() else {}


def headline_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report's first metric, its value for each system, and the digest of the documents.

    Args:
        report: the content of `report.json`.
    """
    systems = {name: system["metrics"] for name, system in report.get("systems", {}).items()}
    metric = next((name for metrics in systems.values() for name in metrics), None)
    corpus = (report.get("data") or {}).get("corpus_sha256")
    found: dict[str, Any] = {} if corpus is None else {"corpus_sha256": str(corpus)}
    if metric is not None:
        values = {name: metrics[metric] for name, metrics in systems.items() if metric in metrics}
        found |= {"metric": metric, "systems": values}
    return found


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_state(folder: Path) -> str | None:
    """Return the state of the run in a folder (`running`, `done`, `pruned`, `failed`, `interrupted`), or None."""
    state = (read_status(folder) or {}).get("state")
    return None if state is None else str(state)


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return the status of the run in a folder, or None.

    It has `state`, `stage`, `error`, `started` (the first time), `finished`, and the `seconds` of all attempts.
    """
    try:
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def seconds_spent(folder: Path, status: Mapping[str, Any]) -> float:
    """Return the seconds of all of a run's attempts; a killed attempt counts until its last log line."""
    seconds = float(status.get("seconds", 0.0))
    if status.get("state") != "running":
        return seconds
    try:
        written, said = ((folder / name).stat().st_mtime for name in ("status.json", "log.txt"))
    except FileNotFoundError:
        return seconds  # the files were removed
    return seconds + max(0.0, said - written)
