"""DOCX files of a word processor."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from embfit.data.formats.block import Block, one_line

if TYPE_CHECKING:
    from docx.table import Table

HEADING = re.compile(r"heading (\d)", re.IGNORECASE)


def read_docx(content: bytes) -> Iterator[Block]:
    """Yield the paragraphs and tables of a document; styles say which of them are headings.

    The style `Title` is above `Heading 1`. Headers and footers of pages are not read.

    Raises:
        ValueError: the file is no DOCX.
    """
    from docx import Document
    from docx.opc.exceptions import PackageNotFoundError
    from docx.table import Table

    try:
        document = Document(io.BytesIO(content))
    except (PackageNotFoundError, BadZipFile, KeyError) as error:
        raise ValueError(f"no DOCX file: {error}") from error
    for number, part in enumerate(document.iter_inner_content(), 1):
        position = f"paragraph {number}"
        if isinstance(part, Table):
            said, level = _rows(part), 0
        else:
            said = one_line(part.text)
            style = (part.style.name or "") if part.style is not None else ""
            found = HEADING.match(style)
            level = int(found[1]) + 1 if found else int(style == "Title")
        if said:
            yield Block(said, position, level)


def _rows(table: Table) -> str:
    return "\n".join(filter(None, (" | ".join(one_line(cell.text) for cell in row.cells) for row in table.rows)))
