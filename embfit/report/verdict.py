"""What the numbers say, in plain words, and no more than they say."""

from __future__ import annotations

from collections.abc import Mapping

from embfit.evaluator.comparison import ALL, compare
from embfit.records import Comparison, Evaluation, Report
from embfit.report.findings import LEVEL, deciding_p, evidence, headline, outcome, same_pair
from embfit.report.formatting import bounds, certainty, count, metric_label, plain, signed

SAMPLES = 10_000  # of a test that the report does not hold
COPIES = "extractive"  # the writer whose queries are words of their documents, which BM25 finds by construction


def verdict(report: Report) -> list[str]:
    """Return the verdict in one to five sentences.

    They say whether nothing was learnt, the difference, whether it holds for unseen documents, BM25 if it leads, and
    what both models reach together with BM25.

    Without a comparison they state what each system reached; an assessment's recommendation stands for all of them.
    """
    if assessment := report.sections.get("assessment"):
        return [assessment["recommendation"]]
    main = headline(report)
    systems = {evaluation.system: evaluation for evaluation in report.evaluations}
    if main is None:
        return [_reached(evaluation) for evaluation in report.evaluations]
    sentences = [*_untrained(report), _difference(main, report, systems)]
    sentences += _unseen(main, report)
    sentences += _lexical(main, report, systems)
    sentences += _fused(main, report, systems)
    return sentences


def _reached(evaluation: Evaluation) -> str:
    metric, value = next(iter(evaluation.metrics.items()))
    queries = count(len(evaluation.per_query[metric]), "query", "queries")
    return f"{evaluation.system} reaches {metric_label(metric)} {plain(value)} on {queries} of {evaluation.split}."


def _untrained(report: Report) -> list[str]:
    if report.training.get("kept_step") != 0:
        return []
    return [
        "Every validation was worse than the model before training, beyond chance, so what was saved is that model, "
        "unchanged: try more data or a lower training.lr."
    ]


def _difference(main: Comparison, report: Report, systems: Mapping[str, Evaluation]) -> str:
    a, b = systems[main.a], systems[main.b]
    label = metric_label(main.metric)
    values = f"{label} {plain(a.metrics[main.metric])} → {plain(b.metrics[main.metric])}"
    queries = count(main.queries, "query", "queries")
    said = f"{certainty(main.ci95, 3)}, {evidence(main, report.comparisons)}, {queries}"
    found = outcome(main)
    if found == "no significant difference":
        return f"No significant difference between {main.a} and {main.b}: {values} ({said})."
    direction = "up" if found == "better" else "down"
    return f"{main.b} is {found} than {main.a}: {values}, {direction} by {abs(main.difference):.3f} ({said})."


def _unseen(main: Comparison, report: Report) -> list[str]:
    parts = {c.subset: c for c in report.comparisons if same_pair(c, main) and c.metric == main.metric}
    if (found := parts.get("unseen")) is None:
        return []
    queries = count(found.queries, "query", "queries")
    sentence = (
        f"On the {queries} about documents unlike any that training saw, {found.b} − {found.a} is "
        f"{signed(found.difference, 3)} ({bounds(found.ci95, 3)}, {evidence(found, report.comparisons)}): "
        f"{outcome(found)}."
    )
    if report.training and outcome(main) == "better" and outcome(found) == "no significant difference":
        seen = parts.get("seen")
        if seen and outcome(seen) == "better" and seen.difference > found.difference:
            sentence += " The gain is shown only for documents that training saw."
        else:
            sentence += " They are too few to tell whether the gain holds there."
    return [sentence]


def _lexical(main: Comparison, report: Report, systems: Mapping[str, Evaluation]) -> list[str]:
    """Say that BM25 leads, where it is above the better of the two systems and not by chance."""
    bm25 = systems.get("bm25")
    if bm25 is None or not bm25.found_any or "bm25" in (main.a, main.b):
        return []
    metric = main.metric
    best = max((systems[main.a], systems[main.b]), key=lambda system: system.metrics[metric])
    pair = {bm25.system, best.system}
    tested = next((c for c in report.comparisons if {c.a, c.b} == pair and _alike(c, main)), None)
    if tested is None:
        tested, *_ = compare(best, bm25, SAMPLES, seed=0)
    if bm25.metrics[metric] <= best.metrics[metric] or deciding_p(tested) >= LEVEL:
        return []
    advice = "combine the model with BM25"
    if _copied(main, report, systems):
        advice = f"{COPIES} takes its queries from the documents' own words, so this says nothing about users' queries"
    return [
        f"BM25 alone reaches {plain(bm25.metrics[metric])}, more than {best.system} "
        f"({evidence(tested, report.comparisons)}): {advice}."
    ]


def _fused(main: Comparison, report: Report, systems: Mapping[str, Evaluation]) -> list[str]:
    """Say what both models reach together with BM25, and which of the two pairs is above the second model alone."""
    fused = {evaluation.facts["of"][0]: evaluation for evaluation in systems.values() if _is_with_words(evaluation)}
    if main.a not in fused or main.b not in fused:
        return []
    reached = [f"{name} {plain(fused[name].metrics[main.metric])}" for name in (main.a, main.b)]
    sentence = f"Fused with BM25, {metric_label(main.metric)}: {', '.join(reached)}."
    ahead = [name for name in (main.a, main.b) if _is_above(fused[name], systems[main.b], main.metric)]
    if not ahead or _copied(main, report, systems):
        return [sentence]
    who = f"Even {main.a} with BM25" if main.a in ahead else "That"
    return [f"{sentence} {who} is above {main.b} alone, beyond chance: serve vectors and words together."]


def _copied(main: Comparison, report: Report, systems: Mapping[str, Evaluation]) -> bool:
    """Return whether the queries were copied from the documents."""
    written = report.data.get("synthetic_splits") or {}
    return bool(written.get(systems[main.a].split) == COPIES)


def _is_above(system: Evaluation, other: Evaluation, metric: str) -> bool:
    """Say whether a system is above another one beyond chance, on all queries."""
    [tested] = [c for c in compare(other, system, SAMPLES, seed=0) if (c.metric, c.subset) == (metric, ALL)]
    return outcome(tested) == "better"


def _is_with_words(evaluation: Evaluation) -> bool:
    return list(evaluation.facts.get("of", ()))[1:] == ["bm25"]


def _alike(comparison: Comparison, main: Comparison) -> bool:
    return (comparison.metric, comparison.subset) == (main.metric, main.subset)
