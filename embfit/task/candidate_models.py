"""The base models that `task=assess` compares: each is found, loaded and measured, and one that fails is reported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count
from typing import TypeVar

from embfit.assess.candidates import ModelCandidate, measure_candidate
from embfit.errors import UserError
from embfit.evaluator.systems import DenseSystem, EvaluationContext, evaluate_other
from embfit.model import Encoder, tokenized
from embfit.records import Evaluation

log = logging.getLogger(__name__)

Found = TypeVar("Found")


def name_models(models: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """Name models by the last part of their paths; if that is taken, by the whole path, or with a number appended.

    Args:
        models: folders, or names on the Hub.
        taken: names of other systems.

    Returns:
        Name → path.
    """
    named: dict[str, str] = {}
    for path in dict.fromkeys(models):
        last = path.rstrip("/").rpartition("/")[2]
        names = chain([last, path], (f"{last}-{number}" for number in count(2)))
        named[next(name for name in names if name not in (*taken, *named))] = path
    return named


def for_each_model(
    named: Mapping[str, str], attempt: Callable[[str, str], Found]
) -> tuple[dict[str, Found], dict[str, str]]:
    """Call a function with each model's name and path; return the results, and the errors of those that failed."""
    found: dict[str, Found] = {}
    failed: dict[str, str] = {}
    for name, path in named.items():
        try:
            found[name] = attempt(name, path)
        except UserError as error:
            failed[name] = str(error)
            log.warning("%s is left out: %s", name, error)
    return found, failed


def candidate(name: str, encoder: Encoder, context: EvaluationContext, documents: int) -> ModelCandidate:
    """Measure the speed and size of a model on the context's documents, of which so many are timed at most."""
    truncated = tokenized(encoder, context.collection, "document", context.store).truncated
    return measure_candidate(name, encoder, context.collection, truncated, documents, context.judging.seed)


def try_model(
    name: str, path: str, context: EvaluationContext, documents: int, judged: Sequence[EvaluationContext] = ()
) -> tuple[list[Evaluation], ModelCandidate]:
    """Measure another base model's speed and size, and its quality on each of some contexts.

    Args:
        name: the model's name in the report.
        path: its folder, or its name on the Hub.
        context: has the documents and the configured model.
        documents: how many documents are timed at most.
        judged: the contexts in which its quality is measured.

    Raises:
        UserError: the model cannot be loaded, or is a late-interaction model.
    """
    encoder = DenseSystem(path).choice(name, context.model).load(*context.devices, store=context.store)
    if not encoder.single:
        raise UserError(f"{path} is a late-interaction model, which task.models cannot measure; task.late={path} does")
    return [evaluate_other(name, encoder, one) for one in judged], candidate(name, encoder, context, documents)
