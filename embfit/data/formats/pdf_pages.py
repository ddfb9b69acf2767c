"""PDF files, by page, with the outline's entries as headings."""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from embfit.data.formats.block import Block, one_line

if TYPE_CHECKING:
    from pypdf import PdfReader

RUNNING_PAGES = 3  # that begin or end with the same line, before it is taken for a running title
HYPHEN = re.compile(r"(?<=[a-z])-\n(?=[a-z])")


def read_pdf(content: bytes) -> Iterator[Block]:
    """Yield the text of each page, parted at the titles that the file's outline names.

    A word that is parted at a line's end is joined. The first and last lines that most pages have in common (numbers
    apart) are asides.

    Raises:
        ValueError: the file is encrypted, or no PDF.
    """
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it says of each small fault
    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError("encrypted; save it without a password")
        pages = [page.extract_text().split("\n") for page in reader.pages]
        headings = _headings(reader)
    except PyPdfError as error:
        raise ValueError(str(error)) from error
    running = _running_lines(pages)
    for number, lines in enumerate(pages, 1):
        yield from _page(lines, f"page {number}", headings.get(number - 1, []), running)


def _page(
    lines: Sequence[str], position: str, headings: Sequence[tuple[int, str]], running: frozenset[str]
) -> Iterator[Block]:
    """Yield a page's text, parted at its headings; one that is not found among the lines stands before all of them."""
    left = list(headings)
    said: list[str] = []
    lost = [heading for heading in left if not any(_same(heading[1], line) for line in lines)]
    for level, title in lost:
        left.remove((level, title))
        yield Block(title, position, level)
    for at, line in enumerate(lines):
        is_running = at in (0, len(lines) - 1) and _masked(line) in running
        if not is_running and not (left and _same(left[0][1], line)):
            said.append(line)
            continue
        yield from _text(said, position)
        said = []
        if is_running:
            yield Block(one_line(line), position, aside=True)
        else:
            level, title = left.pop(0)
            yield Block(title, position, level)
    yield from _text(said, position)


def _text(lines: Sequence[str], position: str) -> Iterator[Block]:
    for paragraph in re.split(r"\n\s*\n", HYPHEN.sub("", "\n".join(lines))):
        if paragraph.strip():
            yield Block(one_line(paragraph), position)


def _headings(reader: PdfReader) -> dict[int, list[tuple[int, str]]]:
    """Return the level and title of the outline's entries by page, in order."""
    found: dict[int, list[tuple[int, str]]] = {}

    def walk(entries: Sequence[Any], level: int) -> None:
        for entry in entries:
            if isinstance(entry, list):
                walk(entry, level + 1)
            elif (page := reader.get_destination_page_number(entry)) is not None and one_line(entry.title or ""):
                found.setdefault(page, []).append((level, one_line(entry.title or "")))

    walk(reader.outline, 1)
    return found


def _same(title: str, line: str) -> bool:
    """Whether a line is a title; it may have the section's number, which the outline leaves out."""
    said = one_line(line).casefold()
    return said == title.casefold() or re.sub(r"^[\dA-Z.]+\s+", "", said) == title.casefold()


def _masked(line: str) -> str:
    return re.sub(r"\d+", "0", one_line(line))


def _running_lines(pages: Sequence[Sequence[str]]) -> frozenset[str]:
    counted = Counter(line for lines in pages if lines for line in {_masked(lines[0]), _masked(lines[-1])} if line)
    return frozenset(line for line, count in counted.items() if count >= max(RUNNING_PAGES, len(pages) / 2))
