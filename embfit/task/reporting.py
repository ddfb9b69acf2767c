"""Ends a task that reports: writes the files, prints the table and the places of the results."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from embfit.compose.command_line import override
from embfit.records import Collection, Report
from embfit.report import print_table, write_report
from embfit.report.decision import decide
from embfit.run.folder import RunFolder
from embfit.run.record import HEADLINE

REPORT = ("report.json", HEADLINE, "report.html", "rankings")
"""What `close` leaves in a run folder."""


@dataclass(frozen=True)
class Usage:
    """How to use a trained model.

    Args:
        words: the overrides of the command that uses it.
        key: the key for the model's folder.
        about: the groups of the run whose overrides this command needs as well.
    """

    words: str
    key: str
    about: tuple[str, ...] = ()


def close(
    report: Report,
    run: RunFolder,
    collection: Collection,
    made: Sequence[tuple[str, str]] = (),
    usage: Usage | None = None,
    card: Callable[[Report, RunFolder], None] | None = None,
    sentences: Sequence[str] = (),
) -> Report:
    """Write a report, print it, and print the places of the results.

    Args:
        report: the task's findings.
        run: the folder of the run.
        collection: the collection that the report is about.
        made: names and places of the task's other results.
        usage: how to use the model that the task trained.
        card: writes the model's card.
        sentences: sentences between the table and the places.

    Returns:
        The report.
    """
    with run.stage("report"):
        write_report(report, run.dir, run.config, run.origins, collection, run.command)
        if card is not None:
            card(report, run)
    print_table(report)
    print_places([*made, *_places(report, run, usage)], sentences)
    return report


def print_places(places: Sequence[tuple[str, str]], sentences: Sequence[str] = ()) -> None:
    """Print sentences, and then the names of things with their places."""
    for sentence in sentences:
        print(sentence)
    width = max(len(name) for name, _ in places)
    for name, place in places:
        print(f"{name:{width}}  {place}")


def _places(report: Report, run: RunFolder, usage: Usage | None) -> Iterator[tuple[str, str]]:
    model = run.dir / "model"
    if usage is not None:
        yield "model", str(model)
    yield "report", str(run.dir / "report.html")
    yield "numbers", str(run.dir / "report.json")
    if usage is not None and report.training.get("kept_step") != 0:  # otherwise it is the unchanged base model
        decision = decide(report)
        same = [word for word in run.overrides if re.split(r"[.=@]", word.lstrip("+~"))[0] in usage.about]
        typed = map(shlex.quote, [override(usage.key, str(model)), *same])
        label = "use it" if decision is None or decision.action == "ship" else "try it"
        yield label, " ".join(["python -m embfit", usage.words, *typed])
