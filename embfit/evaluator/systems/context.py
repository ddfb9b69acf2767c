"""The seam that every system enters a comparison through.

A new kind of system (late interaction, quantised vectors, a product's API) is one frozen dataclass in this folder or in
a config pack, with the settings it needs as fields and one method:

    @dataclass(frozen=True)
    class Shuffled:
        seed: int = 0

        def evaluate(self, name: str, context: Bench) -> Evaluation:
            ranking = ...                      # of context.rows, from context.collection; `metrics.rank` orders it
            return context.judge(name, ranking, {"seed": self.seed})

and an entry under `evaluator.systems` that names it (`shuffled: {_target_: ..., seed: 0}`). Then `task.systems=[base,
shuffled]` measures, compares, tests and reports it like any other. What another system found is
`context.evaluation("bm25").ranking`; the configured model is `context.encoder`. Both are made once, when first needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from embfit.errors import ConfigError
from embfit.evaluator.judging import query_rows
from embfit.model.encoder import Encoder
from embfit.model.pretrained import Pretrained
from embfit.records import Collection, Evaluation, Ranking
from embfit.store import Store

if TYPE_CHECKING:
    from embfit.evaluator.retrieval import Retrieval


@runtime_checkable
class System(Protocol):
    """Something that ranks documents for queries."""

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Rank the context's documents for its queries, and have the ranking judged under this name."""


@dataclass(frozen=True)
class EvaluationContext:
    """One split of one collection, and what systems share while they are measured on it.

    Args:
        collection: searched and judged.
        split: whose queries are asked.
        evaluator: metrics, depth of rankings, and the systems by name.
        store: keeps embeddings, indexes and rankings.
        model: the configured model; loaded when a system first asks for it.
        devices: that systems compute on; many texts are embedded on all of them, everything else on the first.
    """

    collection: Collection
    split: str
    evaluator: Retrieval
    store: Store
    model: Pretrained
    devices: tuple[str, ...] = ("auto",)
    _loaded: list[Encoder] = field(default_factory=list, init=False, repr=False)
    _found: dict[str, Evaluation] = field(default_factory=dict, init=False, repr=False)
    _asking: list[str] = field(default_factory=list, init=False, repr=False)

    def on(self, split: str) -> EvaluationContext:
        """Return the context of another split, with the same model: it is loaded once, whichever asks first."""
        other = replace(self, split=split)
        vars(other)["_loaded"] = self._loaded
        return other

    @cached_property
    def encoder(self) -> Encoder:
        """The configured model."""
        if not self._loaded:
            self._loaded.append(self.model.load(*self.devices))
        return self._loaded[0]

    @cached_property
    def rows(self) -> list[int]:
        """Rows of the split's queries, ascending."""
        return query_rows(self.collection, self.split)

    def evaluation(self, name: str) -> Evaluation:
        """Measure a system of `evaluator.systems`, once.

        Raises:
            ConfigError: there is no such system, or it is made of itself.
            UserError: it cannot answer.
        """
        systems = self.evaluator.systems
        if name not in systems:
            raise ConfigError(f"evaluator.systems has no {name!r}; it has {', '.join(systems)}")
        if name in self._asking:
            circle = " -> ".join([*self._asking, name])
            raise ConfigError(f"evaluator.systems.{name} is made of itself ({circle}); name another system in it")
        if name not in self._found:
            self._asking.append(name)
            try:
                self._found[name] = systems[name].evaluate(name, self)
            finally:
                self._asking.pop()
        return self._found[name]

    def judge(self, name: str, ranking: Ranking, facts: Mapping[str, Any] | None = None) -> Evaluation:
        """Measure a ranking of the split's queries."""
        return self.evaluator.judge(name, self.collection, self.split, ranking, self.store, facts)
