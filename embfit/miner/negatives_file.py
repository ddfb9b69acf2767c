"""A training set as files that a person or another trainer can read: JSON lines, and Parquet for tools with tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embfit.miner.export_formats import ExportFormat, rows, schema
from embfit.progress import track
from embfit.records import Collection, TrainingSet
from embfit.store import replacing

BLOCK = 1024  # examples whose texts are in memory at once


def write_negatives(training_set: TrainingSet, lines: Path, table: Path, layout: ExportFormat = "records") -> int:
    """Write one JSON object a line, and the same as rows of a Parquet table: a query, its positives and its negatives.

    ```
    {"query": {"id": "q7", "text": "…"}, "positives": [{"id": "d3", "text": "…", "score": 0.81}],
     "negatives": [{"id": "d9", "text": "…", "score": 0.74, "rank": 2, "source": "dense"}, …]}
    ```

    Scores and ranks that the source does not have are null. `layouts` says how the others look. A reader finds a whole
    file or none. Texts are read once, in blocks, whatever the number of queries.

    Returns:
        the queries that are in no row, having too few negatives for the layout.

    Raises:
        OSError: a file cannot be written; what was written of it is removed.
    """
    wanted = training_set.facts["wanted"]
    columns = schema(layout, wanted)
    left_out = 0
    with replacing(lines) as text, replacing(table) as parts, pq.ParquetWriter(parts, columns) as parquet:
        objects = track(readable(training_set), "writing negatives", total=len(training_set), unit="queries")
        with text.open("w", encoding="utf-8") as file:
            while block := [rows(one, layout, wanted) for one in islice(objects, BLOCK)]:
                left_out += sum(not found for found in block)
                flat = [row for found in block for row in found]
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in flat)
                parquet.write_table(pa.Table.from_pylist(flat, columns))
    return left_out


def readable(training_set: TrainingSet) -> Iterator[dict[str, Any]]:
    """Yield each example with its texts, as `write_negatives` writes records."""
    collection = training_set.collection
    for start in range(0, len(training_set), BLOCK):
        columns = training_set.rows[start : start + BLOCK]
        texts = _document_texts(collection, [*columns["positives"], *columns["negatives"]])
        queries = collection.query_texts(columns["query"])
        for number, (query, text) in enumerate(zip(columns["query"], queries, strict=True)):
            row = {name: column[number] for name, column in columns.items()}
            yield {
                "query": {"id": collection.query_ids[query], "text": text},
                "positives": [
                    {"id": collection.document_ids[document], "text": texts[document], "score": score}
                    for document, score in zip(row["positives"], row["positive_scores"], strict=True)
                ],
                "negatives": [
                    {
                        "id": collection.document_ids[document],
                        "text": texts[document],
                        "score": score,
                        "rank": rank,
                        "source": source,
                    }
                    for document, score, rank, source in zip(
                        row["negatives"],
                        row["negative_scores"],
                        row["negative_ranks"],
                        row["negative_sources"],
                        strict=True,
                    )
                ],
            }


def _document_texts(collection: Collection, lists: Iterable[Sequence[int]]) -> Mapping[int, str]:
    rows = sorted({row for rows in lists for row in rows})
    return dict(zip(rows, collection.document_texts(rows), strict=True))
