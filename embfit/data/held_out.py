"""Evaluation splits cut from training data so that the two sides share nothing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping

from embfit.data.components import components
from embfit.records import Qrels


def hold_out(
    judged: Qrels,
    bonds: Mapping[str, Iterable[Hashable]],
    shares: Mapping[str, float],
    seed: int,
    staying: Collection[str] = (),
) -> dict[str, dict[str, Mapping[str, int]]]:
    """Cut splits from the training data so that no two of them share a bond (a relevant document, a module).

    Queries that share bonds, directly or through other queries, form a component. Components are never cut. In an order
    drawn with the seed, each component goes to the first split that has room for it; otherwise it stays in training. A
    component with more than ten queries that alone would fill over a tenth of a split stays in training too, because it
    would decide what the split measures.

    Args:
        judged: the judgements to cut.
        bonds: for each query that may be held out, whatever binds it to other queries.
        shares: split name → share of the queries in `bonds` that the split gets.
        seed: seeds the order of the components.
        staying: queries whose components stay in training.

    Returns:
        The judgements of every split in `shares` (a split may be empty) and of `train`.
    """
    room = {split: round(share * len(bonds)) for split, share in shares.items()}
    largest = {split: max(10, size // 10) for split, size in room.items()}
    taken: dict[str, str] = {}
    for group in sorted(components(bonds), key=lambda group: _draw(seed, min(group))):
        fitting = (split for split in room if len(group) <= min(room[split], largest[split]))
        split = "train" if any(query in staying for query in group) else next(fitting, "train")
        taken.update(dict.fromkeys(group, split))
        if split in room:
            room[split] -= len(group)
    cut: dict[str, dict[str, Mapping[str, int]]] = {split: {} for split in ("train", *shares)}
    for query, documents in judged.items():
        cut[taken.get(query, "train")][query] = documents
    return cut


def hold_out_seen(documents: Mapping[str, Iterable[Hashable]], most: int, seed: int) -> set[str]:
    """Choose queries to hold out whose documents training still sees.

    Each document relevant to a chosen query stays relevant to a query that is not chosen.

    Args:
        documents: for each query that may be held out, the documents relevant to it.
        most: how many queries are chosen, at most.
        seed: seeds the order in which queries are looked at.
    """
    wanted = {query: set(its_documents) for query, its_documents in documents.items()}
    left = Counter(document for its_documents in wanted.values() for document in its_documents)
    chosen: set[str] = set()
    for query in sorted(wanted, key=lambda query: _draw(seed, query)):
        if len(chosen) == most:
            break
        if wanted[query] and all(left[document] > 1 for document in wanted[query]):
            chosen.add(query)
            left.subtract(wanted[query])
    return chosen


def cut_folds(bonds: Mapping[str, Iterable[Hashable]], count: int, seed: int) -> dict[str, int]:
    """Deal queries into folds of nearly equal size so that no two folds share a bond (a relevant document).

    Components are those of `hold_out`. They are dealt largest first, each to the smallest fold so far, so one very
    large component makes a fold of its own.

    Args:
        bonds: for each query, whatever binds it to other queries.
        count: number of folds.
        seed: seeds the order of components of equal size.

    Returns:
        Query → its fold, counted from 0. Some folds are empty when there are fewer components than folds.
    """
    sizes = [0] * count
    fold_of: dict[str, int] = {}
    for group in sorted(components(bonds), key=lambda group: (-len(group), _draw(seed, min(group)))):
        smallest = sizes.index(min(sizes))
        fold_of.update(dict.fromkeys(group, smallest))
        sizes[smallest] += len(group)
    return fold_of


def sample(judged: Qrels, most: int, seed: int) -> Qrels:
    """Return at most `most` queries, drawn with the seed, in their given order."""
    drawn = set(sorted(judged, key=lambda query: _draw(seed, query))[:most])
    return {query: documents for query, documents in judged.items() if query in drawn}


def _draw(seed: int, name: str) -> bytes:
    """Return a pseudo-random key that depends on the name alone, so that added data does not move earlier queries."""
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=16).digest()
