"""The same systems on two query sets: the evaluation's own, and the queries that users ask in production.

A synthetic set is cheap, but may be easier than what users ask, or simply different. So each system's metrics on it are
reported beside those on production queries, and so is each gain: the gain that matters is the one in production.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from embfit.evaluator.comparison import compare_all
from embfit.evaluator.metrics import answerable
from embfit.evaluator.power import LEVEL, POWER, detectable, deviation_of, queries_needed
from embfit.evaluator.provenance import same_source
from embfit.evaluator.significance import unpaired_interval
from embfit.evaluator.unjudged import TOP, condensed_metrics, count_unjudged
from embfit.records import Collection, Evaluation

EFFECTS = (0.01, 0.02, 0.05)  # gains for which the number of queries that detects them is reported


def production_gap(
    synthetic: Sequence[Evaluation],
    production: Sequence[Evaluation],
    collection: Collection,
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """Compare the systems' metrics on the two query sets; return JSON values.

    The keys are `systems` (by name: metrics, counts, unjudged documents, metrics of condensed lists), `gaps`
    (production minus synthetic, by system and metric), `gains` (of each further system over the first, on both sets),
    `comparisons` (on production), `power` (how many queries would detect the gains) and `warnings`.

    Args:
        synthetic: the systems on the reported split, the reference first.
        production: the same systems in the same order on the production split.
        collection: has the judgements.
        samples: how many resamples the bootstrap draws, and how many random flips the randomisation test.
        seed: seeds both.
    """
    first, *others = production
    comparisons = compare_all(production, samples, seed)
    metric = next(iter(first.metrics))
    return {
        "split": first.split,
        "synthetic_split": synthetic[0].split,
        "systems": {evaluation.system: _system(evaluation, collection) for evaluation in production},
        "gaps": [
            _gap(before, after, name, samples, seed)
            for before, after in zip(synthetic, production, strict=True)
            for name in after.metrics
        ],
        "gains": [
            _gain((synthetic[0], other), (first, real), metric, samples, seed)
            for other, real in zip(synthetic[1:], others, strict=True)
        ],
        "comparisons": [vars(found) for found in comparisons],
        "power": [
            _power(first, real, other.metrics[metric] - synthetic[0].metrics[metric], metric)
            for other, real in zip(synthetic[1:], others, strict=True)
        ],
        "warnings": list(_warnings(synthetic[0].split, first, collection)),
    }


def _system(evaluation: Evaluation, collection: Collection) -> dict[str, Any]:
    qrels = collection.qrels[evaluation.split]
    unjudged = count_unjudged(evaluation.ranking, qrels)
    return {
        "metrics": dict(evaluation.metrics),
        "queries": evaluation.facts["queries"],
        "left_out": evaluation.facts["left_out"],
        f"unjudged@{TOP}": sum(unjudged.values()) / len(unjudged),
        "condensed": condensed_metrics(evaluation.ranking, qrels, [*evaluation.metrics]),
        "per_query": {metric: dict(values) for metric, values in evaluation.per_query.items()},
        "unjudged_per_query": unjudged,
    }


def _gap(synthetic: Evaluation, production: Evaluation, metric: str, samples: int, seed: int) -> dict[str, Any]:
    before, after = _values(synthetic, metric), _values(production, metric)
    return {
        "system": production.system,
        "metric": metric,
        "synthetic": float(before.mean()),
        "production": float(after.mean()),
        "gap": float(after.mean() - before.mean()),
        "ci95": unpaired_interval(before, after, samples, seed),
    }


def _gain(
    synthetic: tuple[Evaluation, Evaluation],
    production: tuple[Evaluation, Evaluation],
    metric: str,
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """Return a gain on both sets, and how much larger or smaller it is in production."""
    before, after = _differences(*synthetic, metric), _differences(*production, metric)
    return {
        "a": production[0].system,
        "b": production[1].system,
        "metric": metric,
        "synthetic": float(before.mean()),
        "production": float(after.mean()),
        "gap": float(after.mean() - before.mean()),
        "ci95": unpaired_interval(before, after, samples, seed),
    }


def _power(a: Evaluation, b: Evaluation, synthetic_gain: float, metric: str) -> dict[str, Any]:
    differences = _differences(a, b, metric)
    observed, deviation = float(differences.mean()), deviation_of(differences)
    if deviation is None:
        return {"a": a.system, "b": b.system, "metric": metric, "queries": len(differences)}
    return {
        "a": a.system,
        "b": b.system,
        "metric": metric,
        "queries": len(differences),
        "standard_deviation": deviation,
        "level": LEVEL,
        "power": POWER,
        "detectable": detectable(deviation, len(differences)),
        "needed_for_observed": queries_needed(deviation, observed),
        "needed_for_synthetic": queries_needed(deviation, synthetic_gain),
        "needed": {str(effect): queries_needed(deviation, effect) for effect in EFFECTS},
    }


def _warnings(synthetic_split: str, production: Evaluation, collection: Collection) -> Iterator[str]:
    for split in (synthetic_split, production.split):
        if message := same_source(collection, split):
            yield message
    qrels = answerable(collection.qrels[production.split])
    if not any(grade < 1 for grades in qrels.values() for grade in grades.values()):
        yield (
            f"split {production.split!r} has no document judged as not relevant: metrics of condensed lists depend "
            "only on the order of the relevant ones"
        )


def _values(evaluation: Evaluation, metric: str) -> np.ndarray:
    return np.array(list(evaluation.per_query[metric].values()))


def _differences(a: Evaluation, b: Evaluation, metric: str) -> np.ndarray:
    before: Mapping[str, float] = a.per_query[metric]
    return np.array([b.per_query[metric][query] - before[query] for query in before])  # [Q]
