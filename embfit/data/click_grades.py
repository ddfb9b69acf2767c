"""From counts of clicks to graded judgements: rates with a prior, position bias, grades on a log scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class ClickCount:
    """What a log counted for one query and one document.

    Args:
        clicks: how often it was clicked.
        impressions: how often it was shown; 0 where the log does not say.
        weighted: the clicks, each divided by the chance that its position was looked at.
    """

    clicks: float = 0.0
    impressions: float = 0.0
    weighted: float = 0.0

    def add(self, clicks: float, impressions: float, weight: float) -> None:
        """Count a row of the log, whose clicks weigh that much."""
        self.clicks += clicks
        self.impressions += impressions
        self.weighted += clicks * weight


@dataclass(frozen=True)
class Grading:
    """How counts become grades; the arguments are those of `ClickLog`."""

    min_clicks: int
    min_impressions: int
    prior_impressions: float
    min_lift: float
    max_grade: int
    not_relevant_after: int | None

    def grades(
        self, counted: Mapping[str, Mapping[str, ClickCount]]
    ) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
        """Return the grades of a split's documents by query, and what was left out.

        With impressions, the strength of a document is its rate over the overall rate m of the split (its lift), where
        the rate has a prior of `prior_impressions` w with that rate: (clicks + w·m) / (impressions + w). Without
        impressions, it is its clicks over `min_clicks`. The grade is 1 + ⌊log2(strength / least strength)⌋, at most
        `max_grade`: each doubling is one grade.
        """
        pairs = [count for documents in counted.values() for count in documents.values()]
        shown = sum(count.impressions for count in pairs)
        mean = sum(count.weighted for count in pairs) / shown if shown else 0.0
        facts = {"pairs_with_few_clicks_left_out": 0, "pairs_below_min_lift_left_out": 0, "pairs_never_clicked": 0}
        graded: dict[str, dict[str, int]] = {}
        for query, documents in counted.items():
            for document, count in documents.items():
                if not count.clicks:
                    facts["pairs_never_clicked"] += 1
                    if self.not_relevant_after is not None and count.impressions >= self.not_relevant_after:
                        graded.setdefault(query, {})[document] = 0
                elif count.clicks < self.min_clicks or 0 < count.impressions < self.min_impressions:
                    facts["pairs_with_few_clicks_left_out"] += 1
                elif (ratio := self._strength(count, mean)) < 1:
                    facts["pairs_below_min_lift_left_out"] += 1
                else:
                    grade = 1 + math.floor(math.log2(ratio) + 1e-9)  # 2.0 is a doubling, however it was rounded
                    graded.setdefault(query, {})[document] = min(grade, self.max_grade)
        kept = {query: documents for query, documents in graded.items() if any(documents.values())}
        return kept, facts

    def _strength(self, count: ClickCount, mean: float) -> float:
        """Return how strong the evidence is, 1 for the least that counts."""
        if not count.impressions:
            return count.weighted / self.min_clicks
        prior = self.prior_impressions
        rate = (count.weighted + prior * mean) / (count.impressions + prior)
        return rate / mean / self.min_lift


def examination_weight(position: float, exponent: float, most: float) -> float:
    """Return what a click at a position weighs: one over the chance that it was looked at, position^-exponent.

    Inverse-propensity weighting (Joachims, Swaminathan and Schnabel 2017). The limit keeps a few clicks far below from
    deciding everything.
    """
    return min(math.pow(position, exponent), most)
