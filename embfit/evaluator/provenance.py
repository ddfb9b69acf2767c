"""Detect whether one source wrote both training and evaluation queries, which makes a model look better than it is."""

from __future__ import annotations

from embfit.evaluator.subsets import TRAIN
from embfit.records import Collection


def same_source(collection: Collection, split: str) -> str | None:
    """Return a warning if a split's queries come from the source of the training queries, else None.

    A collection's fact `queries_from` names the source of each split (set by `data.queries_from` or by a query
    generator). A split that was held out from training has training's source.
    """
    sources = dict(collection.facts.get("queries_from") or {})
    for name in filter(None, str(collection.facts.get("held_out", "")).split(", ")):
        sources.setdefault(name, sources.get(TRAIN))
    source = sources.get(split)
    if split == TRAIN or source is None or source != sources.get(TRAIN):
        return None
    return (
        f"the queries of split {split!r} come from {source}, which made the training queries too: the model may have "
        "learned its style, so figures on them say little about users' queries"
    )
