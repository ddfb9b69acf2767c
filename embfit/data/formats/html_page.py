"""HTML pages: what a reader sees of them, without what the page itself marks as navigation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from embfit.data.formats.block import Block, one_line, trimmed

UNSEEN = frozenset({"script", "style", "template", "noscript", "svg", "button", "select", "textarea", "iframe"})
ASIDE = frozenset({"nav", "footer"})
ASIDE_ROLES = frozenset({"navigation", "contentinfo", "banner", "search"})
INLINE = frozenset(
    {
        "a",
        "abbr",
        "acronym",
        "b",
        "bdi",
        "bdo",
        "big",
        "cite",
        "code",
        "data",
        "del",
        "dfn",
        "em",
        "font",
        "i",
        "img",
        "input",
        "ins",
        "kbd",
        "label",
        "mark",
        "meter",
        "output",
        "progress",
        "q",
        "rp",
        "rt",
        "ruby",
        "s",
        "samp",
        "small",
        "span",
        "strike",
        "strong",
        "sub",
        "sup",
        "time",
        "tt",
        "u",
        "var",
        "wbr",
    }
)  # every other element begins a block
VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})
HEADINGS = {f"h{level}": level for level in range(1, 7)}
NOT_IN_HEADINGS = frozenset({"p", "ul", "ol", "dl", "table", "pre", "section", "article", "main"})
PERMALINKS = "¶#🔗\uf0c1"  # that generators of documentation put behind headings


def read_html(text: str, first_line: int = 1) -> Iterator[Block]:
    """Yield the blocks of a page, or of a part of one.

    Navigation and footers are asides. So is all that stands outside the main element where a page has one: HTML defines
    it as the page's own content. The page's title is the first heading where there is no heading of the first level.

    Args:
        text: the page.
        first_line: the number of its first line in the file.
    """
    page = _Page(first_line)
    page.feed(text)
    page.close()
    page.end_block()
    has_main = any(is_main for _, is_main in page.blocks)
    blocks = [block._replace(aside=True) if has_main and not is_main else block for block, is_main in page.blocks]
    if page.title and not any(block.level == 1 and not block.aside for block in blocks):
        yield Block(page.title, f"line {first_line}", level=1)
    yield from blocks


class _Element:
    """Whether the parser is inside an element that was looked for: the outermost one, however deep it is."""

    def __init__(self) -> None:
        self._tag = ""
        self._depth = 0

    def __bool__(self) -> bool:
        return self._depth > 0

    def begin(self, tag: str, is_looked_for: bool) -> None:
        if self:
            self._depth += tag == self._tag
        elif is_looked_for:
            self._tag, self._depth = tag, 1

    def end(self, tag: str) -> None:
        if self and tag == self._tag:
            self._depth -= 1


class _Page(HTMLParser):
    """Collects the blocks of a page, each with whether it stands in the main element."""

    def __init__(self, first_line: int) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[tuple[Block, bool]] = []
        self.title = ""
        self._before = first_line - 1
        self._unseen, self._aside, self._main = _Element(), _Element(), _Element()
        self._preformatted, self._table, self._heading, self._titled = _Element(), _Element(), _Element(), _Element()
        self._level = 0
        self._said: list[str] = []
        self._line = 0  # of the first word in what was said
        self._row_begun = False  # whether the table's row has a word

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if self._ends_block(tag):
            self.end_block()
        if tag == "br":
            self._said.append("\n" if self._preformatted else " ")
        elif tag == "tr":
            self._said.append("\n")
            self._row_begun = False
        elif tag in ("td", "th") and self._row_begun:
            self._said.append(" | ")
        elif tag == "img":
            self.handle_data(given.get("alt") or "")
        if tag in VOID:
            return
        if tag in HEADINGS or tag in NOT_IN_HEADINGS:
            self._heading = _Element()  # the one before has no end tag
        if tag in HEADINGS:
            self._level = HEADINGS[tag]
        self._unseen.begin(tag, tag in UNSEEN)
        self._aside.begin(tag, tag in ASIDE or given.get("role") in ASIDE_ROLES)
        self._main.begin(tag, tag == "main" or given.get("role") == "main")
        self._preformatted.begin(tag, tag == "pre")
        self._table.begin(tag, tag == "table")
        self._titled.begin(tag, tag == "title")
        self._heading.begin(tag, tag in HEADINGS)

    def handle_endtag(self, tag: str) -> None:
        if self._ends_block(tag):
            self.end_block()
        for element in (self._unseen, self._aside, self._main, self._preformatted, self._table, self._titled):
            element.end(tag)
        self._heading.end(tag)

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if self._titled:
            self.title = one_line(f"{self.title} {data}")
            return
        if data.strip():
            if not self._line:
                self._line = self.getpos()[0] + data[: len(data) - len(data.lstrip())].count("\n")
            self._row_begun = True
        self._said.append(data if self._preformatted else re.sub(r"\s+", " ", data))

    def _ends_block(self, tag: str) -> bool:
        """Whether a tag parts texts. In a table only headings and code do: its cells are one block."""
        return tag in HEADINGS or tag in ("table", "pre") or (tag not in INLINE and not self._table)

    def end_block(self) -> None:
        """Make a block of what was said since the last one ended."""
        said = "".join(self._said)
        level = self._level if self._heading else 0
        if self._preformatted:
            text = trimmed(said)
        elif self._table and not level:
            text = "\n".join(filter(None, map(one_line, said.split("\n"))))
        else:
            text = one_line(said)
        if level:
            text = text.rstrip(PERMALINKS).rstrip()
        if text.strip():
            block = Block(text, f"line {self._before + self._line}", level, bool(self._aside))
            self.blocks.append((block, bool(self._main)))
        self._said, self._line = [], 0
