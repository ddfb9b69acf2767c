"""What a run leaves for people and programs: `report.json`, `report.html` and TREC files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embfit.evaluator.metrics import answerable
from embfit.evaluator.trec import write_qrels, write_run
from embfit.records import Collection, Evaluation, Report
from embfit.report.contents import contents
from embfit.report.page import page
from embfit.store import write_text


def write_report(
    report: Report,
    folder: Path,
    config: Mapping[str, Any],
    provenance: Mapping[str, str],
    collection: Collection | None = None,
    command: str = "",
) -> None:
    """Write a report into a run folder; every file is whole or not there.

    The numbers come first and the page last, so that a failure to draw loses nothing: `report.json`,
    `rankings/SYSTEM.trec`, `rankings/SPLIT.qrels` (the queries measured) and `report.html`.

    Args:
        report: what was found out.
        folder: the run folder; made if it is not there.
        config: the resolved configuration.
        provenance: key of each of its leaves → where it was written.
        collection: what was evaluated; without it there are no judgements, curves by k or query explorer.
        command: what was typed to run it.

    Raises:
        UserError: an id cannot stand in a TREC file.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(contents(report), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / "report.json", text + "\n")
    for evaluation in _with_dims(report):
        write_run(_file(folder, evaluation.system, "trec"), evaluation.ranking, evaluation.system)
    for evaluation in report.production:
        name = f"{evaluation.system}-{evaluation.split}"
        write_run(_file(folder, name, "trec"), evaluation.ranking, evaluation.system)
    if collection is not None:
        for split in {evaluation.split for evaluation in [*report.evaluations, *report.production]}:
            write_qrels(_file(folder, split, "qrels"), answerable(collection.qrels[split]))
    write_text(folder / "report.html", page(report, config, provenance, collection, command, _versions(folder)))


def _versions(folder: Path) -> Mapping[str, Any]:
    """Return what the run folder recorded of code, packages and machine; nothing outside a run."""
    path = folder / "versions.json"
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _with_dims(report: Report) -> Iterator[Evaluation]:
    for evaluation in report.evaluations:
        yield evaluation
        yield from evaluation.dims.values()


def _file(folder: Path, name: str, ending: str) -> Path:
    """Return a file of `rankings/`; a system may be named after a folder or a Hub model."""
    rankings = folder / "rankings"
    rankings.mkdir(exist_ok=True)
    return rankings / (re.sub(r"[^\w@.-]+", "_", name) + f".{ending}")
