"""reStructuredText, read by docutils; what only Sphinx knows is read for its text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from embfit.data.formats.block import Block, one_line, trimmed

if TYPE_CHECKING:
    from docutils import nodes

SETTINGS = {
    "report_level": 5,  # none is printed
    "halt_level": 5,
    "file_insertion_enabled": False,  # the files that it includes are read by themselves
    "raw_enabled": False,
    "doctitle_xform": False,
    "docinfo_xform": False,
    "syntax_highlight": "none",
    "line_length_limit": 10_000_000,
    "_disable_config": True,
}
ROLE = re.compile(r"(?<![\w`]):[A-Za-z][\w.+-]*(?::[A-Za-z][\w.+-]*)?:`([^`]+)`")
TARGET = re.compile(r"\s*<[^<>]+>\s*\Z")
DIRECTIVE = re.compile(r"\A\s*\.\.\s+(?P<name>[\w.:+-]+?)\s*::[^\S\n]*(?P<arguments>[^\n]*)\n?")
OPTION = re.compile(r"\A\s*:[\w -]+:")
NAVIGATION = frozenset({"toctree", "contents", "index", "sectnum", "tableofcontents"})


def read_restructured_text(text: str) -> Iterator[Block]:
    """Yield the blocks of a reStructuredText file.

    Roles become their text (:func:`open` is open). A directive that docutils does not know becomes its arguments and
    its content. Tables of contents are asides.
    """
    yield from _parse(text, 0)


def _parse(text: str, lines_before: int) -> Iterator[Block]:
    from docutils.core import publish_doctree

    tree = publish_doctree(ROLE.sub(_plain_role, text), settings_overrides=SETTINGS)
    yield from _blocks(tree, lines_before, depth=0, line=1)


def _plain_role(role: re.Match[str]) -> str:
    return TARGET.sub("", role[1]).lstrip("~!") or role[1]


def _blocks(node: nodes.Node, lines_before: int, depth: int, line: int) -> Iterator[Block]:
    from docutils import nodes

    line = node.line or line
    if isinstance(node, nodes.Invisible | nodes.pending):
        return
    if isinstance(node, nodes.system_message):
        for unread in node.findall(nodes.literal_block):
            yield from _unknown_directive(unread.astext(), lines_before + node.get("line", line) - 1)
    elif isinstance(node, nodes.title):
        is_heading = isinstance(node.parent, nodes.section)
        line -= is_heading  # docutils names the line below it
        yield Block(one_line(node.astext()), f"line {lines_before + line}", depth if is_heading else 0)
    elif isinstance(node, nodes.table):
        yield Block(_table(node), f"line {lines_before + line}")
    elif isinstance(node, nodes.TextElement):
        keeps_lines = isinstance(node, nodes.FixedTextElement)
        said = trimmed(node.astext()) if keeps_lines else one_line(node.astext())
        if said.strip():
            yield Block(said, f"line {lines_before + line}")
    else:
        inside = depth + isinstance(node, nodes.section)
        for child in node.children:
            yield from _blocks(child, lines_before, inside, line)


def _table(table: nodes.table) -> str:
    from docutils import nodes

    rows = ([one_line(cell.astext()) for cell in row.findall(nodes.entry)] for row in table.findall(nodes.row))
    title = [one_line(child.astext()) for child in table.findall(nodes.title)]
    return "\n".join([*title, *(" | ".join(cells) for cells in rows)])


def _unknown_directive(source: str, lines_before: int) -> Iterator[Block]:
    """Yield the arguments and the content of a directive; of one that is malformed, all of it."""
    found = DIRECTIVE.match(source)
    if not found:
        yield Block(trimmed(source), f"line {lines_before + 1}")
        return
    content = source[found.end() :].split("\n")
    is_navigation = found["name"] in NAVIGATION
    if arguments := one_line(found["arguments"]):
        yield Block(arguments, f"line {lines_before + 1}", aside=is_navigation)
    begin = 0
    while begin < len(content) and OPTION.match(content[begin]):
        begin += 1
    while begin < len(content) and not content[begin].strip():
        begin += 1
    rest = textwrap.dedent("\n".join(content[begin:])).rstrip()
    if is_navigation and rest:
        yield Block(rest, f"line {lines_before + 2 + begin}", aside=True)
    elif rest:
        yield from (block._replace(level=0) for block in _parse(rest, lines_before + 1 + begin))
