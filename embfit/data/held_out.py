"""Evaluation splits cut from training data, without anything that both sides share."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping

from embfit.data.components import components
from embfit.records import Qrels


def hold_out(
    judged: Qrels, bonds: Mapping[str, Iterable[Hashable]], shares: Mapping[str, float], seed: int
) -> dict[str, Qrels]:
    """Cut splits from training so that no bond (a relevant document, a module) is on two sides.

    Queries that share bonds, directly or through others, form components, which are never cut. In an order drawn from
    the seed, each component goes to the first split that has room for it, or else stays in training. So does one that
    alone would make up a tenth of a split and more than ten queries: it would decide what the split measures.

    Args:
        judged: the judgements to cut.
        bonds: those of each query that may be held out.
        shares: split name → share of these queries.
        seed: draws the order.

    Returns:
        Judgements of every split in `shares`, perhaps empty, and of `train`.
    """
    room = {split: round(share * len(bonds)) for split, share in shares.items()}
    largest = {split: max(10, size // 10) for split, size in room.items()}
    taken: dict[str, str] = {}
    for group in sorted(components(bonds), key=lambda group: _draw(seed, min(group))):
        split = next((split for split in room if len(group) <= min(room[split], largest[split])), "train")
        taken.update(dict.fromkeys(group, split))
        if split in room:
            room[split] -= len(group)
    cut: dict[str, dict[str, Mapping[str, int]]] = {split: {} for split in ("train", *shares)}
    for query, documents in judged.items():
        cut[taken.get(query, "train")][query] = documents
    return {**cut}


def cut_folds(bonds: Mapping[str, Iterable[Hashable]], count: int, seed: int) -> dict[str, int]:
    """Deal queries into folds of nearly equal size so that no bond (a relevant document) is in two of them.

    Components, as in `hold_out`, go largest first to the smallest fold, so one large component makes a fold of its own.

    Args:
        bonds: those of each query.
        count: of folds.
        seed: draws the order of components of equal size.

    Returns:
        Query → its fold, from 0. A fold is empty where there are fewer components.
    """
    sizes = [0] * count
    fold_of: dict[str, int] = {}
    for group in sorted(components(bonds), key=lambda group: (-len(group), _draw(seed, min(group)))):
        smallest = sizes.index(min(sizes))
        fold_of.update(dict.fromkeys(group, smallest))
        sizes[smallest] += len(group)
    return fold_of


def sample(judged: Qrels, most: int, seed: int) -> Qrels:
    """Return at most so many queries, drawn by the seed, in their given order."""
    drawn = set(sorted(judged, key=lambda query: _draw(seed, query))[:most])
    return {query: documents for query, documents in judged.items() if query in drawn}


def _draw(seed: int, name: str) -> bytes:
    """A pseudo-random key of this name alone: more data does not move the queries that were there before."""
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=16).digest()
