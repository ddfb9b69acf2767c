"""Ids of documents and queries: one spelling for every file that has them, whether embfit writes or reads it.

A file of judgements or rankings has ids in columns, where blanks around one are not part of it. An id in a table of
documents could end in a blank, and no judgement would ever find it. So ids lose such blanks wherever they are read.
Blanks within an id, no-break spaces among them, stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from embfit.data.files import text_of

BLANKS = " \t\r\n"  # what parts columns; every other kind of space is part of an id
_PARTING = re.compile(r"[ \t]+")


def identifier(text: str) -> str:
    """Return an id as embfit knows it: without blanks at its ends."""
    return text.strip(BLANKS)


def id_of(place: str, record: Mapping[str, Any], *keys: str) -> str:
    """Return the id of a record.

    Args:
        place: where the record stands, for error messages.
        record: the record's fields.
        keys: the names that the field may have; the first that is there counts.

    Raises:
        UserError: none of the fields is there, or the id is not a text or a whole number.
    """
    return identifier(text_of(place, record, next((key for key in keys if key in record), keys[0])))


def columns_of(line: str, by_tabs: bool) -> list[str]:
    """Return the columns of a line without the blanks around them.

    Args:
        line: the line, perhaps with its line end.
        by_tabs: whether tabs alone separate columns; otherwise blanks do, too.
    """
    columns = line.split("\t") if by_tabs else _PARTING.split(line.strip(BLANKS))
    return [identifier(column) for column in columns]
