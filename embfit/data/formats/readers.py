"""Which reader a file's suffix names, and how its bytes become text."""

from __future__ import annotations

import codecs
import importlib.util
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from embfit.data.formats.block import Block
from embfit.data.formats.html_page import read_html
from embfit.data.formats.markdown_text import read_markdown
from embfit.data.formats.pdf_pages import read_pdf
from embfit.data.formats.plain_text import read_plain_text
from embfit.data.formats.restructured_text import read_restructured_text
from embfit.data.formats.word_file import read_docx

LOOKED_AT = 8192  # bytes of a file that tell text from other content, as git does
DECLARED = re.compile(
    rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:.-]+)|<\?xml[^>]{0,80}?encoding=[\"']([\w:.-]+)", re.I
)


class TextFormat(NamedTuple):
    """A format of text: its name, its reader, and the module that the reader needs."""

    name: str
    read: Callable[[str], Iterable[Block]]
    needs: str | None = None


class BinaryFormat(NamedTuple):
    """A format whose reader takes bytes."""

    name: str
    read: Callable[[bytes], Iterable[Block]]
    needs: str | None = None


Format = TextFormat | BinaryFormat

PLAIN = TextFormat("text", read_plain_text)
MARKDOWN = TextFormat("Markdown", read_markdown, "markdown_it")
HTML = TextFormat("HTML", read_html)
FORMATS: dict[str, Format] = {
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".rst": TextFormat("reStructuredText", read_restructured_text, "docutils"),
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".txt": PLAIN,
    ".text": PLAIN,
    ".pdf": BinaryFormat("PDF", read_pdf, "pypdf"),
    ".docx": BinaryFormat("DOCX", read_docx, "docx"),
}
"""Formats by the suffix of a file's name."""


@dataclass
class UnreadableError(Exception):
    """A file is left out.

    Args:
        reason: the key of `embfit.data.skipped_files.REASONS` that says why.
        detail: what is known beside that.
    """

    reason: str
    detail: str = ""


def has_reader(form: Format) -> bool:
    """Whether the module that a format's reader needs is installed."""
    return form.needs is None or importlib.util.find_spec(form.needs) is not None


def read_blocks(content: bytes, form: Format, encoding: str | None) -> list[Block]:
    """Return a file's blocks.

    Args:
        content: the file's bytes.
        form: its format.
        encoding: of a text that is not UTF-8 and declares no other; None reads no such text.

    Raises:
        UnreadableError: it is not what its format says.
    """
    if isinstance(form, BinaryFormat):
        read = partial(form.read, content)
    else:
        read = partial(form.read, decode(content, form is HTML, encoding))
    try:
        blocks = list(read())
    except Exception as error:  # a reader of foreign files may fail in any way; one file is not worth a run
        raise UnreadableError(
            "malformed", f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        ) from error
    return [block._replace(text=whole_characters(block.text)) for block in blocks]


def decode(content: bytes, is_html: bool, encoding: str | None) -> str:
    """Return the text of bytes: UTF-8, or what a byte order mark or an HTML page declares, or `encoding`.

    Raises:
        UnreadableError: the bytes are no text, or not in the encoding.
    """
    marked = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    name = next((name for mark, name in marked.items() if content.startswith(mark)), "utf-8")
    if b"\0" in content[:LOOKED_AT] and name != "utf-16":
        raise UnreadableError("binary")
    try:
        text = content.decode(name)
    except UnicodeDecodeError as error:
        text = _decode_as(content, is_html, encoding, error)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode_as(content: bytes, is_html: bool, encoding: str | None, why: UnicodeDecodeError) -> str:
    found = DECLARED.search(content[:LOOKED_AT]) if is_html else None
    names = [name.decode("ascii") for name in (found.groups() if found else ()) if name]
    for name in [*names, *([encoding] if encoding else [])]:
        try:
            return content.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
    line = content.count(b"\n", 0, why.start) + 1
    raise UnreadableError("not_utf8", f"byte {content[why.start]:#04x} in line {line}") from why


def whole_characters(text: str) -> str:
    """Put a replacement character where there is half of one, which some PDF files have and UTF-8 has not."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
