"""Markdown, in CommonMark with tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from embfit.data.formats.block import Block, one_line, trimmed
from embfit.data.formats.html_page import read_html

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
TITLE = re.compile(r"^title:[ \t]*(.*\S)[ \t]*$", re.MULTILINE)
NESTING = 1000  # levels of lists and quotations; deeper text would be dropped, by default below 20 levels


def read_markdown(text: str) -> Iterator[Block]:
    """Yield the blocks of a Markdown text.

    Front matter is an aside. Its `title` is the first heading where the text has no heading of the first level.
    """
    skipped = 0
    title = ""
    if matter := FRONT_MATTER.match(text):
        skipped = matter[0].count("\n")
        yield Block(trimmed(matter[1] or ""), "line 1", aside=True)
        if found := TITLE.search(matter[1] or ""):
            title = found[1].strip("\"'")
    blocks = list(_blocks(_parser().parse(text[matter.end() :] if matter else text), skipped))
    if title and not any(block.level == 1 for block in blocks):
        yield Block(title, "line 1", level=1)
    yield from blocks


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"maxNesting": NESTING}).enable("table").enable("strikethrough")
    parser.normalizeLink = str  # type: ignore[assignment, method-assign]  # targets are not read, and escaping them takes a fifth
    parser.validateLink = bool  # type: ignore[assignment, method-assign]  # no link is followed, so none is refused
    return parser


def _blocks(tokens: Sequence[Token], skipped: int) -> Iterator[Block]:
    """Yield the blocks of a text whose first line is that number of lines below the file's first."""
    level = 0
    rows: list[list[str]] | None = None  # of the table that is open
    table = "line 1"
    for token in tokens:
        line = (token.map[0] if token.map else 0) + 1 + skipped
        match token.type:
            case "heading_open":
                level = int(token.tag[1])
            case "table_open":
                rows, table = [], f"line {line}"
            case "tr_open" if rows is not None:
                rows.append([])
            case "table_close" if rows is not None:
                yield Block("\n".join(" | ".join(cells) for cells in rows), table)
                rows = None
            case "inline":
                said = one_line(_plain(token.children or []))
                if rows is not None:
                    rows[-1].append(said)
                elif said:
                    yield Block(said, f"line {line}", level)
                level = 0
            case "fence" | "code_block":
                if code := trimmed(token.content):
                    yield Block(code, f"line {line + (token.type == 'fence')}")
            case "html_block":
                yield from read_html(token.content, line)


def _plain(tokens: Sequence[Token]) -> str:
    """Return what a reader sees of inline Markdown: no marks, no targets of links; of an image, what describes it."""
    said = []
    for token in tokens:
        if token.type in ("text", "text_special", "code_inline"):
            said.append(token.content)
        elif token.type == "image":
            said.append(_plain(token.children or []))
        elif token.type in ("softbreak", "hardbreak") or token.content.startswith("<br"):
            said.append(" ")
    return "".join(said)
