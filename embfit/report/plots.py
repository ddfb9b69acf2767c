"""The kinds of plots that the page's sections draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from embfit.records import Comparison
from embfit.report.drawing import FAINT, GAIN, INK, LOSS, SOFT, STROKES, SYSTEMS, draw
from embfit.report.formatting import metric_label

MARKS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class PlotLine:
    """One system's curve.

    Args:
        name: of the system.
        place: of the system among the page's, which gives its colour and stroke.
        points: x → value.
    """

    name: str
    place: int
    points: Mapping[int, float]


def curves(title: str, label: str, lines: Sequence[PlotLine]) -> Markup:
    """Draw values against whole numbers, evenly spaced whatever the numbers.

    Args:
        title: what is drawn, for those who cannot see it.
        label: of the x axis.
        lines: one a system.
    """
    places = sorted({x for line in lines for x in line.points})

    def onto(axes: Axes) -> None:
        for line in lines:
            color, stroke = SYSTEMS[line.place % len(SYSTEMS)], STROKES[line.place % len(STROKES)]
            ordered = sorted(line.points)
            xs, ys = [places.index(x) for x in ordered], [line.points[x] for x in ordered]
            axes.plot(xs, ys, color=color, linestyle=stroke, marker="o", label=line.name)
        apart = range(0, len(places), 1 + len(places) // 10)
        axes.set_xticks(apart, [f"{places[place]}" for place in apart])
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(label)
        if len(lines) > 1:
            axes.legend(loc="best", handlelength=2.6)

    return draw(title, onto)


def series(title: str, points: Mapping[int, float], mark: int | None = None, dots: bool = False) -> Markup:
    """Draw one value against training steps.

    Args:
        title: what is drawn, for those who cannot see it.
        points: step → value.
        mark: a step to mark.
        dots: show each point.
    """

    def onto(axes: Axes) -> None:
        axes.plot(list(points), list(points.values()), color=SYSTEMS[0], marker="o" if dots else "")
        if mark is not None:
            axes.axvline(mark, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("steps")

    return draw(title, onto, height=1.9)


def gains(title: str, differences: Sequence[float]) -> Markup:
    """Draw each query's difference, from the largest loss to the largest gain."""
    ordered = np.sort(np.asarray(differences))
    places = np.arange(len(ordered) + 1)
    steps = np.append(ordered, ordered[-1])

    def onto(axes: Axes) -> None:
        axes.fill_between(places, steps.clip(min=0), step="post", color=GAIN, linewidth=0)
        axes.fill_between(places, steps.clip(max=0), step="post", color=LOSS, linewidth=0)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_xlim(0, len(ordered))
        axes.set_xlabel("queries, from most worsened to most improved")
        axes.yaxis.set_major_locator(MaxNLocator(5))

    return draw(title, onto)


def intervals(title: str, comparisons: Sequence[Comparison]) -> Markup:
    """Draw differences with their 95 % intervals, a row for each metric and subset."""

    def onto(axes: Axes) -> None:
        for row, found in enumerate(comparisons):
            low, high = found.ci95 or (found.difference, found.difference)  # too few queries: the point alone
            color = INK if found.ci95 is None or low <= 0 <= high else GAIN if low > 0 else LOSS
            axes.plot((low, high), (row, row), color=color, solid_capstyle="butt", linewidth=2)
            axes.plot(found.difference, row, "o", color=color, markersize=5)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_ylim(len(comparisons) - 0.4, -0.6)
        axes.set_yticks(range(len(comparisons)), [f"{metric_label(c.metric)} · {c.subset}" for c in comparisons])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(5))

    return draw(title, onto, height=0.9 + 0.22 * len(comparisons))


def distributions(
    title: str, counts: Mapping[str, np.ndarray], edges: np.ndarray, medians: Mapping[str, float] | None = None
) -> Markup:
    """Draw how scores of the wanted documents and of others are spread, as shares of each kind.

    Args:
        title: what is drawn, for those who cannot see it.
        counts: name → how many scores are in each bin; the first are the wanted ones.
        edges: of the bins, one more than there are bins.
        medians: name → a score to mark.
    """

    def onto(axes: Axes) -> None:
        for (name, found), color, stroke in zip(counts.items(), (GAIN, SOFT), STROKES[:2], strict=True):
            heights = found / found.sum()
            axes.stairs(heights, edges, color=color, fill=True, alpha=0.22, linewidth=0)
            axes.stairs(heights, edges, color=color, linestyle=stroke, linewidth=1.4, label=name)
            if medians:
                axes.axvline(medians[name], ymax=0.8, color=color, linewidth=0.9, linestyle=":")  # below the legend
        axes.set_xlim(edges[0], edges[-1])
        axes.set_yticks([])
        axes.spines["bottom"].set_color(FAINT)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("score; dotted lines are medians" if medians else "score")
        axes.margins(y=0.28)  # room for the legend
        axes.legend(loc="upper right", handlelength=1.8, ncols=2)

    return draw(title, onto, height=2.1)


def sizes(
    title: str, points: Mapping[str, Sequence[tuple[int, float]]], line: float, chosen: tuple[int, float]
) -> Markup:
    """Draw quality against bytes, one kind of mark for each way to keep the vectors.

    Args:
        title: what is drawn, for those who cannot see it.
        points: name → (bytes, value).
        line: a value to be kept.
        chosen: the point to mark.
    """

    def onto(axes: Axes) -> None:
        for place, (name, found) in enumerate(points.items()):
            color, mark = SYSTEMS[place % len(SYSTEMS)], MARKS[place % len(MARKS)]
            axes.plot(*zip(*found, strict=True), mark, color=color, markersize=4.5, fillstyle="none", label=name)
        axes.plot(*chosen, "o", color=GAIN, markersize=10, fillstyle="none")
        axes.axhline(line, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.minorticks_off()
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("bytes of a document")
        axes.legend(loc="lower right", handletextpad=0.2)

    return draw(title, onto)
