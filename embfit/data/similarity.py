"""Sets that are nearly the same, such as the word sequences of copied texts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"\w+")

SHINGLE = 4  # words in a sequence


def similar_pairs(sets: Sequence[frozenset[str]], similarity: float) -> list[tuple[int, int]]:
    """Find all pairs of sets whose Jaccard similarity is at least `similarity`, exactly.

    Only sets that share one of their rarest members are compared: of n members, n - ⌈similarity · n⌉ + 1 are enough
    (prefix filtering, Bayardo et al. 2007), so members that everything has cost nothing.

    Returns:
        Pairs of rows, the larger row first.
    """
    frequency = Counter(member for one in sets for member in one)
    holders: dict[str, list[int]] = {}
    pairs = []
    for row, own in enumerate(sets):
        rarest = sorted(own, key=lambda member: (frequency[member], member))
        candidates: set[int] = set()
        for member in rarest[: len(own) - math.ceil(similarity * len(own)) + 1]:
            earlier = holders.setdefault(member, [])
            candidates.update(earlier)
            earlier.append(row)
        for other in sorted(candidates):
            shared = len(own & sets[other])
            if shared >= similarity * (len(own) + len(sets[other]) - shared):
                pairs.append((row, other))
    return pairs


def shingles(text: str) -> frozenset[str]:
    """The sequences of four words in a text (Broder 1997), without case and punctuation; a shorter text is one."""
    words = _WORD.findall(text.casefold())
    return frozenset(" ".join(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1)))
