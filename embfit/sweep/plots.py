"""Pictures of a sweep, by Optuna: which values go with which result, what matters most, what the front looks like."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embfit.sweep.candidates import Candidate
from embfit.sweep.objective import Aim

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

FEWEST = 3  # points, below which there is nothing to see
LARGE = 10.0  # the largest value through the smallest, from where a logarithmic axis shows more


@dataclass(frozen=True)
class Plot:
    """One picture.

    Args:
        title: of it.
        svg: the picture itself, an element of a page.
        caption: how to read it.
    """

    title: str
    svg: str
    caption: str


def plots(found: Sequence[Candidate], aims: Sequence[Aim]) -> list[Plot]:
    """Draw what can be drawn of these points; nothing without Optuna, or with fewer than three points."""
    if len(found) < FEWEST or not found[0].point:
        return []
    try:
        import optuna
    except ImportError:
        return []
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls its pictures experimental
            return list(_plots(_study(found, aims), aims))
    finally:
        optuna.logging.set_verbosity(before)


def _plots(study: Study, aims: Sequence[Aim]) -> Iterator[Plot]:
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as drawing

    name = aims[0].name
    first: dict[str, Any] = {"target": lambda trial: trial.values[0], "target_name": name}
    caption = "Each line is a point of the sweep; the darker, the better."
    yield Plot("Which values go with which result", _drawn(drawing.plot_parallel_coordinate, study, **first), caption)
    with suppress(ValueError, RuntimeError):  # such as results that are all equal
        svg = _drawn(
            drawing.plot_param_importances,
            study,
            evaluator=PedAnovaImportanceEvaluator(),
            params=_varied(study),
            **first,
        )
        yield Plot(
            "What matters most", svg, f"Share of {name} that each key explains (PED-ANOVA, Watanabe et al. 2023)."
        )
    if len(aims) in (2, 3):
        svg = _drawn(drawing.plot_pareto_front, study, target_names=[aim.name for aim in aims])
        yield Plot("The front", svg, "No other point is better in one objective without being worse in another.")


def _drawn(draw: Callable[..., Any], study: Study, **settings: Any) -> str:
    """Return a picture of Optuna's as an SVG element."""
    import matplotlib as mpl
    from matplotlib import pyplot

    backend = mpl.get_backend()
    pyplot.switch_backend("agg")
    try:
        axes = draw(study, **settings)
        text = io.StringIO()
        axes.figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    finally:
        pyplot.close("all")
        pyplot.switch_backend(backend)
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]


def _study(found: Sequence[Candidate], aims: Sequence[Aim]) -> Study:
    """Return the points as a study, which Optuna's pictures are of."""
    import optuna

    distributions = {key: _distribution([one.point[key] for one in found]) for key in found[0].point}
    study = optuna.create_study(directions=[aim.direction for aim in aims])
    for one in found:
        values = {key: _number(text) if _numeric(distributions[key]) else text for key, text in one.point.items()}
        study.add_trial(optuna.create_trial(params=values, distributions=distributions, values=list(one.values)))
    return study


def _varied(study: Study) -> list[str]:
    """Return the keys of which there is more than one value: the others explain nothing."""
    trials = study.trials
    return [key for key in trials[0].params if len({trial.params[key] for trial in trials}) > 1]


def _distribution(texts: Sequence[str]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    numbers = [_number(text) for text in texts]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return CategoricalDistribution(list(dict.fromkeys(texts)))
    low, high = min(known), max(known)
    return FloatDistribution(low, high, log=low > 0 and high / low >= LARGE)


def _numeric(distribution: BaseDistribution) -> bool:
    from optuna.distributions import FloatDistribution

    return isinstance(distribution, FloatDistribution)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
