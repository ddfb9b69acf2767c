"""What the numbers say, in plain words, and no more than they say."""

from __future__ import annotations

from embfit.records import Comparison, Evaluation, Report
from embfit.report.findings import headline, outcome, same_pair
from embfit.report.wording import bounds, certainty, count, metric_label, plain, probability, signed


def verdict(report: Report) -> list[str]:
    """Return the verdict in one to four sentences.

    They say whether nothing was learnt, the difference, whether it holds for unseen documents, and BM25 if it leads.

    Without a comparison they state what each system reached; an assessment's recommendation stands for all of them.
    """
    if assessment := report.sections.get("assessment"):
        return [assessment["recommendation"]]
    main = headline(report)
    systems = {evaluation.system: evaluation for evaluation in report.evaluations}
    if main is None:
        return [_reached(evaluation) for evaluation in report.evaluations]
    sentences = [*_untrained(report), _difference(main, systems[main.a], systems[main.b])]
    sentences += _unseen(main, report)
    sentences += _lexical(main, systems)
    return sentences


def _reached(evaluation: Evaluation) -> str:
    metric, value = next(iter(evaluation.metrics.items()))
    queries = count(len(evaluation.per_query[metric]), "query", "queries")
    return f"{evaluation.system} reaches {metric_label(metric)} {plain(value)} on {queries} of {evaluation.split}."


def _untrained(report: Report) -> list[str]:
    if report.training.get("best_step") != 0:
        return []
    return [
        "No validation was better than the model before training, so what was saved is that model, unchanged: try more "
        "data, epochs or another training.lr."
    ]


def _difference(main: Comparison, a: Evaluation, b: Evaluation) -> str:
    label = metric_label(main.metric)
    values = f"{label} {plain(a.metrics[main.metric])} → {plain(b.metrics[main.metric])}"
    queries = count(main.queries, "query", "queries")
    evidence = f"{certainty(main.ci95, 3)}, p = {probability(main.p)}, {queries}"
    found = outcome(main)
    if found == "no significant difference":
        return f"No significant difference between {main.a} and {main.b}: {values} ({evidence})."
    direction = "up" if found == "better" else "down"
    return f"{main.b} is {found} than {main.a}: {values}, {direction} by {abs(main.difference):.3f} ({evidence})."


def _unseen(main: Comparison, report: Report) -> list[str]:
    unseen = [c for c in report.comparisons if same_pair(c, main) and c.metric == main.metric and c.subset == "unseen"]
    if not unseen:
        return []
    (found,) = unseen
    queries = count(found.queries, "query", "queries")
    sentence = (
        f"On the {queries} unlike anything in the training split: {signed(found.difference, 3)} "
        f"({bounds(found.ci95, 3)}), {outcome(found)}."
    )
    if report.training and outcome(main) == "better" and outcome(found) != "better":
        sentence += " The gain is shown only for documents that training saw."
    return [sentence]


def _lexical(main: Comparison, systems: dict[str, Evaluation]) -> list[str]:
    bm25 = systems.get("bm25")
    if bm25 is None or "bm25" in (main.a, main.b):
        return []
    value, reached = bm25.metrics[main.metric], systems[main.b].metrics[main.metric]
    if value <= reached:
        return []
    return [f"BM25 alone reaches {plain(value)}, more than {main.b}: search by words belongs in this system."]
