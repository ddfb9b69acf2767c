"""Tells whether one source wrote both training and evaluation queries, which makes a model look better than it is."""

from __future__ import annotations

from embfit.evaluator.subsets import TRAIN
from embfit.records import Collection


def same_source(collection: Collection, split: str) -> str | None:
    """Return a warning where a split's queries come from what made the training queries, else None.

    A collection says where its queries come from in its facts: `queries_from`, split → name (`data.queries_from`; a
    query generator writes it too). A split that was held out from training has training's source.
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
