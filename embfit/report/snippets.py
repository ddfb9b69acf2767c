"""The part of a document in which most of its score was found, in pieces of which some are marked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from embfit.records import MatchedWords

LEAD = 40  # characters shown in front of the first word that was found
Pieces = list[tuple[str, float]]


def snippet(text: str, matched: MatchedWords, characters: int) -> Pieces:
    """Return the stretch of a text in which most of the score was found.

    Args:
        text: the document, as it was read.
        matched: which of its words were found.
        characters: how long the stretch is, at most.

    Returns:
        Pieces in order, each with the part of the score that the query's words found in it (0 to 1; 0 is not marked).
    """
    start, end = _window(text, matched.found, characters)
    pieces: Pieces = [("… ", 0.0)] if start else []
    place = start
    for first, last, share in matched.found:
        if start <= first and last <= end:
            pieces += [(text[place:first], 0.0), (text[first:last], part(share, matched))]
            place = last
    pieces += [(text[place:end], 0.0)]
    pieces += [(" …", 0.0)] if end < len(text) else []
    return [(re.sub(r"\s+", " ", piece), share) for piece, share in pieces if piece]


def part(share: float, matched: MatchedWords) -> float:
    """Return which part of the score a share is; 0 where scores are not positive, so that parts mean nothing."""
    return max(0.0, share / matched.score) if matched.score > 0 else 0.0


def _window(text: str, found: Sequence[tuple[int, int, float]], characters: int) -> tuple[int, int]:
    """Return the ends of the stretch that holds the largest shares, the first of equal ones, cut at words."""
    if len(text) <= characters or not found:
        start = 0
    else:
        starts = [max(0, first - LEAD) for first, _, _ in found]
        held = [
            sum(share for first, last, share in found if start <= first and last <= start + characters)
            for start in starts
        ]
        start = starts[held.index(max(held))]
        start = min(start, max(0, len(text) - characters))
    if start and not text[start - 1].isspace():
        start += len(re.match(r"\S*\s*", text[start : start + LEAD]).group())  # type: ignore[union-attr]  # it matches ""
    end = min(len(text), start + characters)
    if end < len(text) and (space := text.rfind(" ", start + LEAD, end)) > 0:
        end = space
    return start, end
