"""The end of a task that reports: files, the table in the terminal, and where things are."""

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
    """How a trained model is used.

    Args:
        words: overrides as they are typed.
        key: the key that names the model's folder.
        about: the groups of the run whose overrides these need as well, to be about the same things.
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
    """Write a report, print it, and say where things are.

    Args:
        report: what the task found out.
        run: the folder of the run.
        collection: what the report is about.
        made: name and place of what the task made besides the report.
        usage: how the model that the task trained is used.
        card: writes the model's card.
        sentences: what is said between the table and the places.

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
    if usage is not None and report.training.get("kept_step") != 0:  # else it is the base, unchanged
        decision = decide(report)
        same = [word for word in run.overrides if re.split(r"[.=@]", word.lstrip("+~"))[0] in usage.about]
        typed = map(shlex.quote, [override(usage.key, str(model)), *same])
        label = "use it" if decision is None or decision.action == "ship" else "try it"
        yield label, " ".join(["python -m embfit", usage.words, *typed])
