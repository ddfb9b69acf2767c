"""`summary.html`: a sweep's table and plots in one file that needs no network."""

from __future__ import annotations

from html import escape
from pathlib import Path

from embfit.store import write_text
from embfit.sweep.job import ENDED, Result
from embfit.sweep.plots import Plot, plots
from embfit.sweep.summary import Summary

FILE = "summary.html"

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>embfit · sweep</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ padding: .3rem .8rem; text-align: left; border-bottom: 1px solid #8884; }}
tr.best {{ font-weight: 600; }}
tr.failed td, tr.pruned td {{ opacity: .7; }}
code {{ font-size: .9em; }}
figure {{ margin: 2rem 0; }}
figure svg {{ max-width: 100%; height: auto; background: #fff; }}
</style>
</head>
<body>
<h1>Sweep</h1>
<p><code>{command}</code></p>
{sentences}
<table>
<tr>{head}</tr>
{rows}
</table>
{plots}
</body>
</html>
"""


def write_page(summary: Summary, folder: Path) -> Path:
    """Write the page into a sweep's folder."""
    head, *rows = summary.table()
    lines = []
    for result, row in zip(summary.ranked, rows, strict=True):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f'<tr class="{_kind(summary, result)}">{cells}</tr>')
    said = [*summary.sentence.splitlines(), *summary.verdict_lines]
    page = PAGE.format(
        command=escape(summary.command),
        sentences="\n".join(f"<p>{escape(line)}</p>" for line in said),
        head="".join(f"<th>{escape(cell)}</th>" for cell in head),
        rows="\n".join(lines),
        plots="\n".join(map(_figure, plots(summary.candidates, summary.aims))),
    )
    write_text(folder / FILE, page)
    return folder / FILE


def _kind(summary: Summary, result: Result) -> str:
    if summary.best is not None and result in summary.best.results:
        return "best"
    if result.state == "pruned":
        return "pruned"
    return "" if result.state in ENDED else "failed"


def _figure(plot: Plot) -> str:
    caption = f"<figcaption>{escape(plot.caption)}</figcaption>"
    return f"<figure>\n<h2>{escape(plot.title)}</h2>\n{plot.svg}\n{caption}\n</figure>"
