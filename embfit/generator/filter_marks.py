"""The input of filters for a generated query, and their results for all queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ORDER = (
    "leak", "form", "improbable", "mention", "language", "copy", "duplicate", "general", "similar", "round_trip",
    "cross_encoder", "judge",
)  # fmt: skip
"""The names of the filters, in the order in which they are applied."""


@dataclass(frozen=True)
class FilteredText:
    """A query, as filters read it.

    Args:
        text: the query.
        row: the row of its document.
        document_text: the document's text.
        may_copy: whether it may consist of the document's words.
        finished: whether the model ended it before the limit of tokens.
        log_probability: the mean log-probability of its tokens; None if that is not known.
    """

    text: str
    row: int
    document_text: str
    may_copy: bool = False
    finished: bool = True
    log_probability: float | None = None


@dataclass(frozen=True)
class Marks:
    """The results of the filters, one entry for each query.

    Args:
        dropped_by: the filter that drops the query, or `review` if a reviewer does; None if it is kept.
        ranks: by ranker, the rank of its document; None beyond the first hundred or without a search.
        runs: the number of words in the longest sequence that it shares with its document.
        grades: a judge's grade, 0 to 3; None if none was requested or given.
        facts: counts of the judge's requests.
    """

    dropped_by: Sequence[str | None]
    ranks: Mapping[str, Sequence[int | None]]
    runs: Sequence[int]
    grades: Sequence[int | None] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        counted = Counter(mark for mark in self.dropped_by if mark is not None)
        others = sorted(counted.keys() - set(ORDER))  # such as a reviewer's decisions
        object.__setattr__(self, "counts", {name: counted[name] for name in (*ORDER, *others)})

    @property
    def kept(self) -> int:
        """The number of queries that no filter drops."""
        return sum(mark is None for mark in self.dropped_by)
