"""Finding sets that are nearly the same, such as the word sequences of copied texts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"\w+")

SHINGLE = 4  # words in a sequence


def similar_pairs(sets: Sequence[frozenset[str]], similarity: float) -> list[tuple[int, int]]:
    """Find all pairs of sets whose Jaccard similarity is at least `similarity`, exactly.

    Only sets that share one of their rarest members are compared. Of n members, the rarest n - ⌈similarity · n⌉ + 1 are
    enough (prefix filtering, Bayardo et al. 2007), so members that most sets have cost nothing.

    Returns:
        Pairs of places in `sets`, the larger place first.
    """
    frequency = Counter(member for one in sets for member in one)
    holders: dict[str, list[int]] = {}
    pairs = []
    for row, own in enumerate(sets):
        candidates: set[int] = set()
        for member in _rarest(own, frequency, similarity):
            earlier = holders.setdefault(member, [])
            candidates.update(earlier)
            earlier.append(row)
        for other in sorted(candidates):
            shared = len(own & sets[other])
            if shared >= similarity * (len(own) + len(sets[other]) - shared):
                pairs.append((row, other))
    return pairs


def similar_to(sets: Sequence[frozenset[str]], others: Iterable[frozenset[str]], similarity: float) -> set[int]:
    """Find the sets whose Jaccard similarity to one of the others is at least `similarity`, exactly.

    Only `sets` are held in memory; the others are read one by one. Most others are ruled out because too few of their
    members occur in any of the sets. The rest are compared with the sets that share one of their rarest members, as in
    `similar_pairs`.

    Returns:
        The places in `sets` of those found.
    """
    frequency = Counter(member for one in sets for member in one)
    holders: dict[str, list[int]] = {}
    for place, own in enumerate(sets):
        for member in _rarest(own, frequency, similarity):
            holders.setdefault(member, []).append(place)
    found: set[int] = set()
    for other in others:
        if sum(member in frequency for member in other) < similarity * len(other):
            continue
        candidates = {place for member in _rarest(other, frequency, similarity) for place in holders.get(member, ())}
        for place in candidates - found:
            shared = len(other & sets[place])
            if shared >= similarity * (len(other) + len(sets[place]) - shared):
                found.add(place)
    return found


def _rarest(own: frozenset[str], frequency: Counter[str], similarity: float) -> list[str]:
    """Return as many of the rarest members as it takes for every similar set to share one of them."""
    ordered = sorted(own, key=lambda member: (frequency[member], member))
    return ordered[: len(own) - math.ceil(similarity * len(own)) + 1]


def words(text: str) -> frozenset[str]:
    """Return the words of a text in lower case, without punctuation."""
    return frozenset(_WORD.findall(text.casefold()))


def shingles(text: str) -> frozenset[str]:
    """Return the sequences of four words in a text (Broder 1997), in lower case and without punctuation.

    A text of fewer words is one sequence.
    """
    words = _WORD.findall(text.casefold())
    return frozenset(" ".join(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1)))
