"""`summary.html`: the table and plots of a sweep, in the style of a run's report."""

from __future__ import annotations

from pathlib import Path

from embfit.atomic_files import write_text
from embfit.report.templates import template_environment
from embfit.sweep.job import ENDED, Result
from embfit.sweep.plots import plots
from embfit.sweep.summary import Summary

FILE = "summary.html"


def write_page(summary: Summary, folder: Path) -> Path:
    """Write the page into a sweep's folder and return its path."""
    head, *rows = summary.table()
    page = (
        template_environment("sweep", "report")
        .get_template(FILE)
        .render(
            command=summary.command,
            sentences=[*summary.sentence.splitlines(), *summary.verdict_lines],
            head=head,
            rows=[(_kind(summary, result), row) for result, row in zip(summary.ranked, rows, strict=True)],
            plots=plots(summary.candidates, summary.objectives),
        )
    )
    write_text(folder / FILE, page)
    return folder / FILE


def _kind(summary: Summary, result: Result) -> str:
    if summary.best is not None and result in summary.best.results:
        return "best"
    if result.state == "pruned":
        return "pruned"
    return "" if result.state in ENDED else "failed"
