"""The documents of a version: a memory-mapped Arrow file with ids, texts and metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embfit.bundle.manifest import DocumentsRecord
from embfit.errors import UserError
from embfit.records import Collection
from embfit.suggestions import suggestion
from embfit.text_digests import DIGESTS

FILE = "documents.arrow"
TEXTS = ("title", "text")
OWN = ("_id", *TEXTS, *DIGESTS.names)
BLOCK = 4096  # documents written at a time
SHOWN = 100  # characters of a value that a message quotes


def write_documents(folder: Path, collection: Collection, texts: bool = True) -> list[str]:
    """Write the documents of a collection, with the digests of their texts; return the columns.

    Args:
        folder: the folder for the file.
        collection: the documents; columns other than `_id`, `title` and `text` are metadata.
        texts: whether to write titles and texts; otherwise only ids, digests and metadata.

    Raises:
        OSError: the file cannot be written.
    """
    corpus, digests = collection.corpus, collection.document_digests
    columns = [name for name in corpus.column_names if name not in DIGESTS.names and (texts or name not in TEXTS)]
    rows = corpus.select_columns(columns).with_format("arrow")

    def block(start: int) -> pa.Table:
        table = rows[start : start + BLOCK].replace_schema_metadata()
        for name in DIGESTS.names:
            table = table.append_column(name, digests[name].slice(start, BLOCK))
        return table

    with (folder / FILE).open("wb") as file, pa.ipc.new_stream(file, block(0).schema) as writer:
        for start in range(0, len(corpus), BLOCK):
            writer.write_table(block(start))
    return columns


def read_documents(folder: Path, name: str, record: DocumentsRecord) -> Collection:
    """Open the documents of a version, as a collection without queries.

    Args:
        folder: the version's folder.
        name: the name of the collection.
        record: the manifest's record of the documents.

    Raises:
        UserError: the file is missing or damaged.
    """
    from datasets import Dataset  # takes a second to import

    path = folder / FILE
    try:
        corpus = Dataset.from_file(str(path))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}); use another version") from error
    if len(corpus) != record.count:
        raise UserError(f"{path} has {len(corpus)} documents, and {record.count} were published; use another version")
    return Collection(name, corpus, Dataset.from_dict({"_id": [], "text": []}), {})


def metadata_columns(collection: Collection) -> list[str]:
    """Return the metadata columns, by which searches can be filtered."""
    return [name for name in collection.corpus.column_names if name not in OWN]


def matching_rows(collection: Collection, where: Mapping[str, Any]) -> np.ndarray:
    """Return the rows of the documents whose metadata match a filter ([M] int64, ascending).

    Args:
        collection: the documents.
        where: column → the required value, or a list of accepted values.

    Raises:
        UserError: a column does not exist, or has values of another type.
    """
    known = metadata_columns(collection)
    chosen = np.ones(len(collection.corpus), bool)
    for column, wanted in where.items():
        if column not in known:
            raise UserError(
                f"the documents have no metadata column {column!r}{suggestion(column, known)}; "
                f"they have {', '.join(known) or 'none'}"
            )
        values = collection.corpus.with_format("arrow").select_columns([column])[:][column]
        asked = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
        try:
            found = pc.is_in(values, value_set=pa.array(asked, type=values.type))
        except (pa.ArrowException, OverflowError) as error:
            shown = repr(wanted)
            shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
            message = f"{column}={shown} does not fit the column's type, {values.type}"
            if pa.types.is_nested(values.type):
                message = f"{column} cannot be filtered by: its type is {values.type}; name a column of single values"
            raise UserError(message) from error
        chosen &= found.combine_chunks().to_numpy(zero_copy_only=False)
    return np.flatnonzero(chosen)
