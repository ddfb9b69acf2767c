"""The page's plots, as SVG that follows the page's colours.

matplotlib draws them: of the well-kept libraries it alone makes plain SVG without a script or a browser (plotly and
bokeh inline megabytes of JavaScript, altair needs a renderer). Its colours are fixed when it draws, and a page in light
and dark is not, so everything is drawn in stand-in colours that are exchanged for the page's CSS variables.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from embfit.records import Comparison
from embfit.report.wording import metric_label

INK, FAINT, GAIN, LOSS = "#010101", "#020202", "#030303", "#040404"
SYSTEMS = ["#110101", "#110202", "#110303", "#110404", "#110505", "#110606"]
VARIABLES = {
    INK: "--ink",
    FAINT: "--rule",
    GAIN: "--gain",
    LOSS: "--loss",
    **{color: f"--system-{place}" for place, color in enumerate(SYSTEMS)},
}
STROKES = ["-", (0, (4, 2)), (0, (1, 1.5)), "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (8, 3))]  # told apart without colour

STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "text.parse_math": False,  # a system's name may hold a dollar sign
    "svg.fonttype": "none",  # text stays text: it is searched, read aloud and set in the page's font
    "svg.hashsalt": "embfit",  # the same input gives the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
}


@dataclass(frozen=True)
class Line:
    """One system's curve.

    Args:
        name: of the system.
        place: of the system among the page's, which gives its colour and stroke.
        points: x → value.
    """

    name: str
    place: int
    points: Mapping[int, float]


def curves(title: str, label: str, lines: Sequence[Line], mark: int | None = None) -> str:
    """Draw values against whole numbers, evenly spaced whatever the numbers.

    Args:
        title: what is drawn, for those who cannot see it.
        label: of the x axis.
        lines: one a system.
        mark: a number on the x axis to mark.
    """
    places = sorted({x for line in lines for x in line.points})
    with mpl.rc_context(STYLE):
        figure, axes = _axes()
        for line in lines:
            color, stroke = SYSTEMS[line.place % len(SYSTEMS)], STROKES[line.place % len(STROKES)]
            ordered = sorted(line.points)
            xs, ys = [places.index(x) for x in ordered], [line.points[x] for x in ordered]
            axes.plot(xs, ys, color=color, linestyle=stroke, marker="o", label=line.name)
        if mark in places:
            axes.axvline(places.index(mark), color=INK, linewidth=0.8, linestyle=":")
        shown = range(0, len(places), 1 + len(places) // 10)
        axes.set_xticks(shown, [f"{places[place]}" for place in shown])
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(label)
        if len(lines) > 1:
            axes.legend(loc="best", handlelength=2.6)
        return _svg(figure, title)


def gains(title: str, differences: Sequence[float]) -> str:
    """Draw each query's difference, from the largest loss to the largest gain."""
    ordered = np.sort(np.asarray(differences))
    places = np.arange(len(ordered) + 1)
    steps = np.append(ordered, ordered[-1])
    with mpl.rc_context(STYLE):
        figure, axes = _axes()
        axes.fill_between(places, steps.clip(min=0), step="post", color=GAIN, linewidth=0)
        axes.fill_between(places, steps.clip(max=0), step="post", color=LOSS, linewidth=0)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_xlim(0, len(ordered))
        axes.set_xlabel("queries, from most worsened to most improved")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return _svg(figure, title)


def intervals(title: str, comparisons: Sequence[Comparison]) -> str:
    """Draw differences with their 95 % intervals, a row for each metric and subset."""
    with mpl.rc_context(STYLE):
        figure, axes = _axes(height=0.9 + 0.22 * len(comparisons))
        for row, found in enumerate(comparisons):
            color = GAIN if found.ci95[0] > 0 else LOSS if found.ci95[1] < 0 else INK
            axes.plot(found.ci95, (row, row), color=color, solid_capstyle="butt", linewidth=2)
            axes.plot(found.difference, row, "o", color=color, markersize=5)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_ylim(len(comparisons) - 0.4, -0.6)
        axes.set_yticks(range(len(comparisons)), [f"{metric_label(c.metric)} · {c.subset}" for c in comparisons])
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return _svg(figure, title)


def _axes(height: float = 2.5) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, height), layout="constrained")
    axes = figure.add_subplot()
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """Return the drawing as an `<svg>` element that takes the page's width, fonts and colours."""
    drawn = io.StringIO()
    empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(drawn, format="svg", transparent=True, metadata=empty)
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would reach the whole page
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", svg)  # ids that nothing refers to repeat in the next plot
    svg = re.sub(r"font-family: [^;\"]+; ", "", svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    opening = f'<svg {view[0] if view else ""} role="img" aria-label="{escape(title)}">'
    svg = re.sub(r"^<svg [^>]*>", lambda _: opening, svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return svg
