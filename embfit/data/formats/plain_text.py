"""Plain text: paragraphs are parted by blank lines, and there are no headings."""

from __future__ import annotations

from collections.abc import Iterator

from embfit.data.formats.block import Block, trimmed


def read_plain_text(text: str) -> Iterator[Block]:
    """Yield the paragraphs of a text, with their line breaks: nothing says whether they matter."""
    lines: list[str] = []
    for number, line in enumerate([*text.replace("\f", "\n").splitlines(), ""], 1):
        if line.strip():
            lines.append(line)
        elif lines:
            yield Block(trimmed("\n".join(lines)).strip(), f"line {number - len(lines)}")
            lines = []
