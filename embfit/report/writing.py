"""What a run leaves for people and programs: `report.json`, `report.html` and TREC files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from embfit.atomic_files import write_text
from embfit.data.trec import write_qrels, write_run
from embfit.evaluator.metrics import answerable
from embfit.records import Collection, Evaluation, Report
from embfit.report.contents import contents
from embfit.run.record import HEADLINE, headline_of


def write_report(
    report: Report,
    folder: Path,
    config: Mapping[str, Any],
    provenance: Mapping[str, str],
    collection: Collection | None = None,
    command: str = "",
) -> None:
    """Write a report into a run folder; every file is whole or not there.

    The numbers come first and the page last, so that a failure to draw loses nothing: `report.json`, `headline.json`,
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
    from embfit.report.page import page  # matplotlib is slow to import

    folder.mkdir(parents=True, exist_ok=True)
    found = contents(report)
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / "report.json", text + "\n")
    write_text(folder / HEADLINE, json.dumps(headline_of(found)) + "\n")
    rankings = folder / "rankings"
    rankings.mkdir(exist_ok=True)
    runs = [(evaluation.system, evaluation) for evaluation in _with_dims(report)]
    runs += [(f"{evaluation.system}-{evaluation.split}", evaluation) for evaluation in report.production]
    for file, (_, evaluation) in zip(_file_names([name for name, _ in runs]), runs, strict=True):
        write_run(rankings / f"{file}.trec", evaluation.ranking, evaluation.system)
    if collection is not None:
        splits = sorted({evaluation.split for evaluation in [*report.evaluations, *report.production]})
        for file, split in zip(_file_names(splits), splits, strict=True):
            write_qrels(rankings / f"{file}.qrels", answerable(collection.qrels[split]))
    model = folder / "model"
    html = page(report, config, provenance, collection, command, _versions(folder), model if model.is_dir() else None)
    write_text(folder / "report.html", html)


def _versions(folder: Path) -> Mapping[str, Any]:
    """Return what the run folder recorded of code, packages and machine; nothing outside a run."""
    path = folder / "versions.json"
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _with_dims(report: Report) -> Iterator[Evaluation]:
    for evaluation in report.evaluations:
        yield evaluation
        yield from evaluation.dims.values()


def _file_names(names: Iterable[str]) -> list[str]:
    """Name a file after each; a system may be named after a folder or a Hub model, and no file is that of two."""
    files: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem = re.sub(r"[^\w@.-]+", "_", name)
        numbered = (f"{stem}-{number}" for number in count(2))
        files.append(next(file for file in chain([stem], numbered) if file.lower() not in taken))
        taken.add(files[-1].lower())  # where upper and lower case are one, as on a Mac
    return files
