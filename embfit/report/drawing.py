"""Drawings as SVG that follows the page's colours.

matplotlib draws them: of the well-kept libraries it alone makes plain SVG without a script or a browser (plotly and
bokeh inline megabytes of JavaScript, altair needs a renderer). Its colours are fixed when it draws, and a page in light
and dark is not, so everything is drawn in stand-in colours that are exchanged for the page's CSS variables.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, FAINT, GAIN, LOSS, SOFT = "#010101", "#020202", "#030303", "#040404", "#050505"
SYSTEMS = ["#110101", "#110202", "#110303", "#110404", "#110505", "#110606"]
VARIABLES = {
    INK: "--ink",
    FAINT: "--rule",
    GAIN: "--gain",
    LOSS: "--loss",
    SOFT: "--soft",
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
    "axes.spines.left": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": SOFT,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
}


@dataclass(frozen=True)
class Plot:
    """A figure of the page: what it shows, in words, and the drawing."""

    caption: str
    svg: Markup


def draw(title: str, onto: Callable[[Axes], None], height: float = 2.5) -> Markup:
    """Return a drawing as an `<svg>` element that takes the page's width, fonts and colours.

    Args:
        title: what is drawn, for those who cannot see it.
        onto: draws on the axes that it is given.
        height: in inches, the width being 4.6.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        onto(figure.add_subplot())
        return Markup(_svg(figure, title))


def _svg(figure: Figure, title: str) -> str:
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
