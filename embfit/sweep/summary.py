"""What a sweep found: a table in the terminal, `summary.json` and `summary.html`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from embfit.compose.value_table import aligned
from embfit.store import write_text
from embfit.sweep.job import Result
from embfit.sweep.objective import Direction

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
tr.failed td {{ opacity: .7; }}
code {{ font-size: .9em; }}
</style>
</head>
<body>
<h1>Sweep</h1>
<p><code>{command}</code></p>
<p>{sentence}</p>
<table>
<tr>{head}</tr>
{rows}
</table>
</body>
</html>
"""


@dataclass(frozen=True)
class Summary:
    """All results of a sweep.

    Args:
        command: what was typed.
        objective: what was looked at.
        direction: whether more of it is better.
        results: in the order of the jobs' numbers.
    """

    command: str
    objective: str
    direction: Direction
    results: Sequence[Result]

    @property
    def ranked(self) -> list[Result]:
        """The results, the best first, and those without an objective last."""
        sign = -1 if self.direction == "maximize" else 1
        return sorted(
            self.results,
            key=lambda result: (result.state != "done", result.objective is None, sign * (result.objective or 0)),
        )

    @property
    def best(self) -> Result | None:
        """The best finished job; None where none has an objective."""
        first = next(iter(self.ranked), None)
        return first if first and first.state == "done" and first.objective is not None else None

    @property
    def unfinished(self) -> list[Result]:
        """Jobs that failed, were interrupted or were not begun."""
        return [result for result in self.results if result.state != "done"]

    @property
    def sentence(self) -> str:
        """What there is to say in a line."""
        done = len(self.results) - len(self.unfinished)
        words = f"{done} of {len(self.results)} jobs done"
        if self.best is not None:
            point = " ".join(f"{key}={value}" for key, value in self.best.job.point.items())
            words += f"; best {self.objective} {self.best.objective:.4f} in job {self.best.job.number} ({point})"
        elif done:
            words += f"; no report has {self.objective}, so none is the best (set sweep.objective)"
        return words

    def table(self) -> list[tuple[str, ...]]:
        """Return head and rows."""
        keys = list(dict.fromkeys(key for result in self.results for key in result.job.point))
        systems = list(dict.fromkeys(name for result in self.results for name in result.headline))
        head = ("job", *keys, self.objective, *(f"report {name}" for name in systems), "minutes", "")
        return [head, *(self._row(result, keys, systems) for result in self.ranked)]

    def _row(self, result: Result, keys: list[str], systems: list[str]) -> tuple[str, ...]:
        return (
            str(result.job.number),
            *(result.job.point.get(key, "") for key in keys),
            "" if result.objective is None else f"{result.objective:.4f}",
            *(f"{result.headline[name]:.4f}" if name in result.headline else "" for name in systems),
            "" if result.minutes is None else f"{result.minutes:.1f}",
            "" if result.state == "done" else ": ".join(filter(None, [result.state, result.error])),
        )

    def text(self) -> str:
        """Return the table and the sentence, for a terminal."""
        return "\n".join([*aligned(self.table()), self.sentence])

    def write(self, folder: Path) -> None:
        """Write `summary.json` and `summary.html`."""
        record = {
            "command": self.command,
            "objective": self.objective,
            "direction": self.direction,
            "best": self.best.job.number if self.best else None,
            "jobs": [
                {
                    "number": result.job.number,
                    "point": dict(result.job.point),
                    "state": result.state,
                    "error": result.error,
                    "objective": result.objective,
                    "headline": dict(result.headline),
                    "minutes": result.minutes,
                }
                for result in self.results
            ],
        }
        write_text(folder / "summary.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        write_text(folder / "summary.html", self._page())

    def _page(self) -> str:
        head, *rows = self.table()
        lines = []
        for result, row in zip(self.ranked, rows, strict=True):
            kind = "best" if result is self.best else "failed" if result.state != "done" else ""
            cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
            lines.append(f'<tr class="{kind}">{cells}</tr>')
        return PAGE.format(
            command=escape(self.command),
            sentence=escape(self.sentence),
            head="".join(f"<th>{escape(cell)}</th>" for cell in head),
            rows="\n".join(lines),
        )
