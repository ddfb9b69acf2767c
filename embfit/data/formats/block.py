"""What every reader of a format returns: the paragraphs and headings of a file, in order."""

from __future__ import annotations

import re
from typing import NamedTuple


class Block(NamedTuple):
    """A paragraph, a heading, a list item, a table or a piece of code.

    Args:
        text: what it says; only code and tables keep their line breaks.
        position: where it begins in its file (`line 41`, `page 3`).
        level: 1 is an outermost heading, 2 one inside it; 0 is text.
        aside: the file itself says that this is no part of its content: navigation, a footer, a running title.
    """

    text: str
    position: str
    level: int = 0
    aside: bool = False


def one_line(text: str) -> str:
    """Return a text with every run of blanks and line breaks as one blank."""
    return " ".join(text.split())


def trimmed(code: str) -> str:
    """Return code, or another text whose lines matter, without blank lines around it and blanks at the line ends."""
    return re.sub(r"[^\S\n]+(?=\n|$)", "", code).strip("\n")
