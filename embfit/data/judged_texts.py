"""The texts of judged queries and documents, read from tables in which most rows are not judged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute

from embfit.records import Collection
from embfit.text_digests import CONTENT


def query_texts(collection: Collection) -> dict[str, str]:
    """Return the text of every judged query by its id."""
    judged = {query for queries in collection.qrels.values() for query in queries}
    return {row[0]: row[1] for row in _rows(collection.queries.data.table, judged, ["text"])}


def document_contents(collection: Collection) -> dict[str, bytes]:
    """Return the digest of every judged document's title and text by its id."""
    judged = {name for queries in collection.qrels.values() for documents in queries.values() for name in documents}
    return {row[0]: row[1] for row in _rows(collection.corpus.data.table, judged, [CONTENT])}


def _rows(table: pa.Table, ids: set[str], columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the id and the columns of the rows with these ids, batch by batch: a large corpus is never in memory."""
    chosen = pa.compute.is_in(table["_id"], value_set=pa.array(ids, pa.string())).combine_chunks()
    start = 0
    for batch in table.to_batches():
        rows = batch.filter(chosen.slice(start, batch.num_rows))
        start += batch.num_rows
        yield from zip(*(rows.column(name).to_pylist() for name in ("_id", *columns)), strict=True)
