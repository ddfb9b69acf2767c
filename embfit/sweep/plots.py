"""Plots of a sweep: which values lead to which results, which keys matter most, and the front."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from embfit.report.drawing import FAINT, GAIN, INK, SOFT, SYSTEMS, Plot, draw
from embfit.sweep.candidates import SweepCandidate, front
from embfit.sweep.objective import Objective

FEWEST = 3  # points that a plot needs
LARGE = 10.0  # ratio of the largest to the smallest value from which on an axis is logarithmic


def plots(found: Sequence[SweepCandidate], objectives: Sequence[Objective]) -> list[Plot]:
    """Return the plots that these points allow; none for fewer than three points."""
    if len(found) < FEWEST or not found[0].point:
        return []
    drawn = [_lines(found, objectives[0])]
    if shares := _importances(found, objectives[0]):
        drawn.append(_bars(shares, objectives[0]))
    return [*drawn, *(_front(found, objectives, other) for other in range(1, len(objectives)))]


def _lines(found: Sequence[SweepCandidate], objective: Objective) -> Plot:
    """Draw each point as a line through its values (parallel coordinates), with the best one on top."""
    ordered = sorted(found, key=lambda one: objective.sign * one.values[0])[
        ::-1
    ]  # the best last, of equal ones the first
    columns = {key: [one.point[key] for one in ordered] for key in ordered[0].point}
    columns[objective.name] = [f"{one.values[0]:.4f}" for one in ordered]
    scales = {key: _scale(texts) for key, texts in columns.items()}

    def onto(axes: Axes) -> None:
        for place, one in enumerate(zip(*columns.values(), strict=True), start=1):
            heights = [scale[text] for scale, text in zip(scales.values(), one, strict=True)]
            best = place == len(ordered)
            axes.plot(
                heights, color=GAIN if best else SYSTEMS[0], alpha=1 if best else 0.1 + 0.6 * place / len(ordered)
            )
        for place, scale in enumerate(scales.values()):
            axes.axvline(place, color=FAINT, linewidth=0.8, zorder=0)
            for text, height in _labels(scale):
                axes.annotate(text, (place, height), (3, 0), textcoords="offset points", va="bottom", color=SOFT)
        axes.set_xticks(range(len(scales)), list(scales))
        axes.set_yticks([])
        axes.set_xlim(-0.1, len(scales) - 0.5)  # room for the labels of the last axis
        axes.spines["bottom"].set_visible(False)

    title = "Which values lead to which results"
    return Plot(
        f"{title}: each line is a point; stronger lines are better points, and the best has its own colour.",
        draw(title, onto, height=3.2),
    )


def _scale(texts: Sequence[str]) -> dict[str, float]:
    """Return the height of each value from 0 to 1: by size if all values are numbers, otherwise evenly spaced."""
    numbers = [_number(text) for text in texts]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        names = list(dict.fromkeys(texts))
        return {name: place / max(1, len(names) - 1) for place, name in enumerate(names)}
    low, high = min(known), max(known)
    if low > 0 and high / low >= LARGE:
        known, low, high = [math.log(number) for number in known], math.log(low), math.log(high)
    return {text: (number - low) / (high - low or 1) for text, number in zip(texts, known, strict=True)}


def _labels(scale: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yield the values that fit on an axis without touching each other, including both ends."""
    ordered = sorted(scale.items(), key=lambda item: item[1])
    shown = [ordered[0]]
    for text, height in ordered[1:-1]:
        if height - shown[-1][1] > 0.1 and ordered[-1][1] - height > 0.1:
            shown.append((text, height))
    yield from dict([*shown, ordered[-1]]).items()


def _importances(found: Sequence[SweepCandidate], objective: Objective) -> dict[str, float]:
    """Return the share of an objective that each key explains; empty without Optuna or if all results are equal."""
    try:
        import optuna
    except ImportError:
        return {}
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    keys = [key for key in found[0].point if len({one.point[key] for one in found}) > 1]
    places = {key: _scale([one.point[key] for one in found]) for key in keys}
    numeric = {key: all(_number(text) is not None for text in scale) for key, scale in places.items()}
    space: dict[str, BaseDistribution] = {
        key: FloatDistribution(0.0, 1.0) if numeric[key] else CategoricalDistribution(list(scale))
        for key, scale in places.items()
    }
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(direction=objective.direction)
        for one in found:
            point = {key: places[key][one.point[key]] if numeric[key] else one.point[key] for key in keys}
            study.add_trial(optuna.create_trial(params=point, distributions=space, value=one.values[0]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls this measure experimental
            return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError):  # such as results that are all equal
        return {}
    finally:
        optuna.logging.set_verbosity(before)


def _bars(shares: Mapping[str, float], objective: Objective) -> Plot:
    def onto(axes: Axes) -> None:
        names = list(shares)[::-1]
        axes.barh(names, [shares[name] for name in names], color=SYSTEMS[0], height=0.5)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.set_xlim(0, 1)

    title = "What matters most"
    caption = f"{title}: the share of {objective.name} that each key explains (PED-ANOVA, Watanabe et al. 2023)."
    return Plot(caption, draw(title, onto, height=0.7 + 0.3 * len(shares)))


def _front(found: Sequence[SweepCandidate], objectives: Sequence[Objective], other: int) -> Plot:
    best = front(found, objectives)

    def onto(axes: Axes) -> None:
        for one in found:
            color, fill = (GAIN, "full") if one in best else (SOFT, "none")
            axes.plot(one.values[other], one.values[0], "o", color=color, fillstyle=fill, markersize=5)
        axes.set_xlabel(objectives[other].name)
        axes.set_ylabel(objectives[0].name)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(5))

    title = "The front"
    return Plot(
        f"{title}: no point is better than a filled one in one objective without being worse in another.",
        draw(title, onto),
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
