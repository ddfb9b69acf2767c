"""Documents cut at their headings and paragraphs into pieces that a model reads whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from embfit.data.formats.block import Block
from embfit.data.token_estimate import estimate_tokens

BETWEEN_HEADINGS = " > "
TITLE_SHARE = 4  # a title of more than a quarter of a piece loses its outer headings
SPECIAL_TOKENS = 2  # that an encoder adds

# Where a text that is too long is parted: at lines, then after sentences, then between words
PARTINGS = (re.compile(r"(?<=\n)"), re.compile(r"(?<=[.!?…。！？])\s+|(?<=[。！？])"), re.compile(r"\s+"))


class Piece(NamedTuple):
    """A part of a document: the headings above it, its text, and where it begins (`line 41`)."""

    title: str
    text: str
    position: str


class Section(NamedTuple):
    """The blocks between two headings, under the path of all headings above them."""

    path: Sequence[Block]
    blocks: Sequence[Block]


def whole(blocks: Sequence[Block]) -> Iterator[Piece]:
    """Yield a document as one piece: its first heading is the title if it begins with one, the others are text."""
    title = blocks[0].text if blocks and blocks[0].level else ""
    text = "\n".join(block.text for block in blocks[bool(title) :])
    if blocks:
        yield Piece(title, text, blocks[0].position)


def cut(blocks: Iterable[Block], tokens: int) -> Iterator[Piece]:
    """Yield the pieces of a document, with the path of headings as their titles.

    A section longer than a piece is parted between paragraphs into pieces of about equal length; a longer paragraph
    between lines, sentences and words, in this order. A section without text is none: its heading is in the path of
    those below it.

    Args:
        blocks: the document's text and headings.
        tokens: the length of a piece with its title, as `estimate_tokens` counts.
    """
    for section in sections(blocks):
        path = [heading.text for heading in section.path]
        while len(path) > 1 and estimate_tokens(BETWEEN_HEADINGS.join(path)) > tokens / TITLE_SHARE:
            path.pop(0)
        title = BETWEEN_HEADINGS.join(path)
        room = max(tokens - SPECIAL_TOKENS - estimate_tokens(title), tokens // 2)
        yield from _pack(title, section.blocks, room)


def sections(blocks: Iterable[Block]) -> Iterator[Section]:
    """Yield the sections of a document, those without text too."""
    path: list[Block] = []
    inside: list[Block] = []
    for block in blocks:
        if not block.level:
            inside.append(block)
            continue
        if inside or path:
            yield Section(path, inside)
        path = [*(heading for heading in path if heading.level < block.level), block]
        inside = []
    if inside or path:
        yield Section(path, inside)


def headings_without_text(blocks: Sequence[Block]) -> int:
    """Return how many headings are in no piece, since there is no text below them."""
    above_text = {id(heading) for section in sections(blocks) if section.blocks for heading in section.path}
    return sum(block.level > 0 and id(block) not in above_text for block in blocks)


def _pack(title: str, blocks: Sequence[Block], room: int) -> Iterator[Piece]:
    """Yield pieces of about equal length that hold the blocks, in order."""
    parts = [(text, estimate_tokens(text), block.position) for block in blocks for text in split_text(block.text, room)]
    total = sum(size for _, size, _ in parts)
    enough = total / max(1, -(-total // room))  # of pieces that are all as long as each other
    said: list[str] = []
    used, position = 0, ""
    for text, size, place in parts:
        if said and (used + size > room or used >= enough):
            yield Piece(title, "\n".join(said), position)
            said, used = [], 0
        position = position if said else place
        said.append(text)
        used += size
    if said:
        yield Piece(title, "\n".join(said), position)


def split_text(text: str, room: int, partings: Sequence[re.Pattern[str]] = PARTINGS) -> Iterator[str]:
    """Yield parts of a text that are at most so many tokens long; only blanks between them are lost."""
    if estimate_tokens(text) <= room:
        yield text
        return
    if not partings:  # a word without end, of an encoded image perhaps
        yield from (text[at : at + room] for at in range(0, len(text), room))
        return
    gathered, used = "", 0
    between = "" if partings[0] is PARTINGS[0] else " "
    for part in filter(None, partings[0].split(text)):
        size = estimate_tokens(part)
        if gathered and used + size > room:
            yield from split_text(gathered.strip("\n"), room, partings[1:])
            gathered, used = "", 0
        gathered += between * bool(gathered) + part
        used += size
    yield from split_text(gathered.strip("\n"), room, partings[1:])
