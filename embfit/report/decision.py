"""What to do with a tuned model: ship it, do not ship it yet, or judge more queries first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from embfit.evaluator.power import POWER, deviation_of, queries_needed
from embfit.evaluator.significance import FEWEST
from embfit.records import Comparison, Evaluation, Report
from embfit.report.findings import headline, outcome, same_pair
from embfit.report.formatting import count, metric_label, plain, signed, untold

Action: TypeAlias = Literal["ship", "wait", "judge"]

SMALLEST = 0.01  # a gain in the first metric that is worth a new model
REAL = "100 to 200"  # queries of users that tell what synthetic ones cannot
NOT_YET = "Do not ship it yet."


@dataclass(frozen=True)
class Decision:
    """What to do next.

    Args:
        action: `ship` the model, `wait` (it is not shown to be better), or `judge` more queries.
        headline: the decision, in one short sentence.
        reason: what it rests on, in a sentence or two.
    """

    action: Action
    headline: str
    reason: str

    def __str__(self) -> str:
        return f"{self.headline} {self.reason}"


def decide(report: Report) -> Decision | None:
    """Apply the rules in order; the first that holds decides. None where nothing was trained and compared.

    Users' queries decide where they were measured (`evaluator=production`), else those of the reported split.

    1. The weights kept are those before training: do not ship.
    2. The tuned model is worse, beyond chance, on all queries or on documents that training never saw: do not ship.
    3. The queries that decide are synthetic: judge real ones.
    4. It is better, beyond chance: ship, unless queries are too few for an interval.
    5. The difference is within chance. Where the base leaves less than 0.01 to gain: keep it. Where a gain of 0.01 or
       more would show on the queries that there are, or the tuned model is not above the base: do not ship. Else judge
       as many more as it takes.
    """
    main = headline(report)
    if main is None or not report.training:
        return None
    if report.training.get("kept_step") == 0:
        return Decision(
            "wait", NOT_YET, "Training made the model worse on the dev split, so the saved model is the base."
        )
    found, evaluations = _deciding(main, report)
    queries = count(found.queries, "query", "queries")
    if outcome(found) == "worse":
        return Decision("wait", NOT_YET, f"On {queries}, {found.b} is worse than {found.a} by more than chance.")
    if writer := _writer(evaluations, report):
        reason = (
            f"{found.b} − {found.a} is {signed(found.difference, 3)} {metric_label(found.metric)} on {queries} that "
        )
        return Decision("judge", f"Judge {REAL} real queries.", f"{reason}{writer} wrote, not users.")
    if outcome(found) == "better":
        return _better(found, report, None if report.sections.get("production") else _unseen(main, report))
    return _unclear(found, evaluations)


def _writer(evaluations: Sequence[Evaluation], report: Report) -> str | None:
    """Return what wrote the queries of evaluations, where no people did."""
    return (report.data.get("synthetic_splits") or {}).get(evaluations[0].split) if evaluations else None


def _deciding(main: Comparison, report: Report) -> tuple[Comparison, Sequence[Evaluation]]:
    """Return the comparison that decides, and the evaluations that it is of."""
    for one in report.sections.get("production", {}).get("comparisons", ()):
        found = Comparison(**one)
        if same_pair(found, main) and (found.metric, found.subset) == (main.metric, main.subset):
            return found, report.production
    return main, report.evaluations


def _unseen(main: Comparison, report: Report) -> Comparison | None:
    """Return the comparison on queries about documents that training never saw; None where all or none are of these."""
    parts = (found for found in report.comparisons if same_pair(found, main) and found.metric == main.metric)
    return next((found for found in parts if found.subset == "unseen"), None)


def _better(found: Comparison, report: Report, unseen: Comparison | None) -> Decision:
    if found.ci95 is None:
        more = count(FEWEST - found.queries, "more query", "more queries")
        reason = f"{found.b} is ahead, but {count(found.queries, 'query', 'queries')} are too few to say by how much."
        return Decision("judge", f"Judge {more}.", reason)
    gain = f"{found.b} is better than {found.a} by {found.difference:.3f} {metric_label(found.metric)}"
    if unseen is None or outcome(unseen) == "better":
        return Decision(
            "ship", "Ship it.", f"{gain}, beyond chance{'' if unseen is None else ', on new documents too'}."
        )
    if outcome(unseen) == "worse":
        reason = f"{gain}, but worse on documents that training never saw: add training queries about more documents."
        return Decision("wait", NOT_YET, reason)
    needed = _more(unseen, report.evaluations)
    judge = f"about {count(needed, 'more query', 'more queries')}" if needed and needed > 0 else "more queries"
    return Decision(
        "ship",
        "Ship it for today's documents.",
        f"{gain}, beyond chance. For documents that training never saw this is not shown; judge {judge} about such "
        "documents.",
    )


def _unclear(found: Comparison, evaluations: Sequence[Evaluation]) -> Decision:
    queries = count(found.queries, "query", "queries")
    reached = next((one.metrics[found.metric] for one in evaluations if one.system == found.a), 0.0)
    if reached > 1 - SMALLEST:
        left = f"{found.a} reaches {metric_label(found.metric)} {plain(reached)} on {queries}, so little is left"
        return Decision("wait", f"Keep {found.a}.", f"{left} to gain. Harder queries would show more.")
    if found.difference <= 0:
        return Decision("wait", NOT_YET, f"{found.b} is not above {found.a} on {queries}.")
    more = _more(found, evaluations)
    if more is None:
        why = untold(found.queries)
        return Decision("judge", "Judge more queries.", f"How many it takes to see a gain is not known: {why}.")
    if more <= 0:
        reason = f"{queries} show a gain of {SMALLEST:g} {POWER:.0%} of the time, and show none beyond chance."
        return Decision("wait", NOT_YET, reason)
    effect = max(found.difference, SMALLEST)
    return Decision(
        "judge",
        f"Judge about {count(more, 'more query', 'more queries')}.",
        f"{found.b} is ahead by {signed(found.difference, 3)}, which may be chance on {queries}; it takes about "
        f"{found.queries + more:,} to show a gain of {effect:.3f}.",
    )


def _more(found: Comparison, evaluations: Sequence[Evaluation]) -> int | None:
    """Return how many more queries would show the gain seen, or the smallest that counts; None where not known."""
    systems: Mapping[str, Evaluation] = {one.system: one for one in evaluations}
    before, after = systems[found.a].per_query[found.metric], systems[found.b].per_query[found.metric]
    names = systems[found.a].subsets.get(found.subset, list(before))
    differences = np.array([after[query] - before[query] for query in names])  # [Q]
    needed = queries_needed(deviation_of(differences), max(found.difference, SMALLEST))
    return None if needed is None else needed - found.queries
