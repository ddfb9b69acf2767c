"""The interface by which every system takes part in a comparison.

A new kind of system (late interaction, quantised vectors, a product's API) is one frozen dataclass in this folder or in
a config pack, with the settings it needs as fields and one method:

    @dataclass(frozen=True)
    class Shuffled:
        seed: int = 0

        def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
            ranking = ...                      # of context.rows, from context.collection; `Ranking.of` orders it
            return context.judge(name, ranking, {"seed": self.seed})

and an entry under `evaluator.systems` that names it (`shuffled: {_target_: ..., seed: 0}`). Then `task.systems=[base,
shuffled]` measures, compares, tests and reports it like any other. Another system's ranking is
`context.evaluation("bm25").ranking`; the configured model is `context.encoder`. Both are made once, when first needed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Protocol, runtime_checkable

from embfit.errors import ConfigError
from embfit.evaluator.judging import Judging, judge, judgements, query_rows
from embfit.evaluator.search import CorpusSearch
from embfit.evaluator.stored_hits import stored
from embfit.evaluator.subsets import by_training
from embfit.index.protocol import Hits
from embfit.model.encoder import Encoder
from embfit.model.encoder_choice import EncoderChoice
from embfit.records import Collection, Evaluation, Ranking
from embfit.store import Store

log = logging.getLogger(__name__)

MANY_WITHOUT_RESULT = 0.5  # share of the queries without a result from which a warning is logged


@runtime_checkable
class System(Protocol):
    """Something that ranks documents for queries."""

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Rank the context's documents for its queries, and judge the ranking under this name."""


class EvaluationContext:
    """One split of one collection, and what systems share while they are measured on it.

    Args:
        collection: has the documents, queries and judgements.
        split: the split whose queries are searched for.
        judging: how rankings are judged, and how deep they are.
        systems: the systems that can be measured, by name.
        store: keeps embeddings, indexes and rankings.
        model: the configured model; it is loaded when a system first needs it.
        devices: where systems compute; many texts are embedded on all of them, everything else on the first.
        load: returns the configured model's encoder, the same each time; by default it is loaded once, on the devices.
        costs: whether bytes and milliseconds of each encoder's index are measured (facts `index`).
    """

    def __init__(
        self,
        collection: Collection,
        split: str,
        judging: Judging,
        systems: Mapping[str, System],
        store: Store,
        model: EncoderChoice,
        devices: tuple[str, ...] = ("auto",),
        load: Callable[[], Encoder] | None = None,
        costs: bool = False,
    ) -> None:
        self.collection = collection
        self.split = split
        self.judging = judging
        self.systems = systems
        self.store = store
        self.model = model
        self.devices = devices
        self.costs = costs
        self._load = load or cache(partial(model.load, *devices, store=store))
        self._rows: list[int] | None = None
        self._found: dict[str, Evaluation] = {}
        self._in_progress: list[str] = []  # names of the systems under evaluation, the outermost first

    def on(self, split: str) -> EvaluationContext:
        """Return the context of another split; both share one model, which is loaded once.

        Costs do not depend on the split, so they are not measured again.
        """
        other = EvaluationContext(
            self.collection, split, self.judging, self.systems, self.store, self.model, self.devices, self._load
        )
        other._in_progress = self._in_progress  # a system that refers to itself on another split is a circle, too
        return other

    def about(self, collection: Collection) -> EvaluationContext:
        """Return the context of another collection; both share one model, which is loaded once."""
        return EvaluationContext(
            collection, self.split, self.judging, self.systems, self.store, self.model, self.devices, self._load
        )

    @property
    def encoder(self) -> Encoder:
        """The configured model."""
        return self._load()

    @property
    def rows(self) -> list[int]:
        """Rows of the split's queries, ascending.

        Raises:
            UserError: there is no such split, or none of its queries has a relevant document.
        """
        if self._rows is None:
            self._rows = query_rows(self.collection, self.split)
        return self._rows

    @property
    def search(self) -> CorpusSearch:
        """The search of the collection, as deep as rankings are."""
        return CorpusSearch(self.collection, self.judging.depth)

    def evaluation(self, name: str) -> Evaluation:
        """Measure a system of `evaluator.systems`, once.

        Raises:
            ConfigError: there is no such system, or it refers to itself.
            UserError: the system cannot be measured.
        """
        if name not in self.systems:
            raise ConfigError(f"evaluator.systems has no {name!r}; it has {', '.join(self.systems)}")
        if name in self._in_progress:
            circle = " -> ".join([*self._in_progress, name])
            raise ConfigError(f"evaluator.systems.{name} refers to itself ({circle}); name another system in it")
        if name not in self._found:
            self._in_progress.append(name)
            try:
                self._found[name] = self.systems[name].evaluate(name, self)
            finally:
                self._in_progress.pop()
        return self._found[name]

    def judge(self, name: str, ranking: Ranking, facts: Mapping[str, Any] | None = None) -> Evaluation:
        """Measure a ranking of the split's queries, from any source.

        Raises:
            UserError: there is no such split, or none of its queries has a relevant document.
        """
        judgements(self.collection, self.split)  # raises for a split that cannot be judged, before it is grouped
        subsets = by_training(self.collection, self.split, self.judging.near_copy, self.store)
        found = judge(name, self.collection, self.split, ranking, self.judging.metrics, facts, subsets)
        self._warn_without_results(found)
        return found

    def _warn_without_results(self, found: Evaluation) -> None:
        """Warn if a system finds nothing for many queries, which low metrics alone would not tell from bad results."""
        queries, without = found.facts["queries"], found.facts.get("queries_without_result", 0)
        if without >= MANY_WITHOUT_RESULT * queries:
            log.warning(
                "%s finds no document for %s of the %d queries of %s%s",
                found.system,
                "any" if without == queries else without,
                queries,
                found.split,
                ", so it cannot work on this data and is compared with no other system" if without == queries else "",
            )

    def judge_hits(self, name: str, key: Mapping[str, Any], find: Callable[[], Hits]) -> Evaluation:
        """Measure the hits of a search for the split's queries; hits with the same key come from the store.

        Args:
            name: the system's name in reports.
            key: what the hits depend on besides the texts and the depth: the kind of search, fingerprints of models.
            find: searches for the queries of `rows`, `search.search_depth` deep.
        """
        texts = {"corpus": self.collection.corpus_digest, "queries": self.collection.queries_digest}
        started = time.monotonic()
        full_key = {**key, **texts, "rows": self.rows, "reach": self.search.search_depth}
        hits, reused = stored(self.store, full_key, find)
        ranking = self.search.ranking(self.rows, hits)
        facts = {"seconds": round(time.monotonic() - started, 3), "reused": reused}
        return self.judge(name, ranking, facts)
