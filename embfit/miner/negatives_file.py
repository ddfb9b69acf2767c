"""A training set as files that people and other trainers can read: JSON lines and Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embfit.atomic_files import replacing
from embfit.miner.export_formats import ExportFormat, rows, schema
from embfit.progress import track
from embfit.records import Collection, TrainingSet

BLOCK = 1024  # examples whose texts are in memory at once


def write_negatives(training_set: TrainingSet, lines: Path, table: Path, layout: ExportFormat = "records") -> int:
    """Write a query, its positives and its negatives as a JSON object per line, and as rows of a Parquet table.

    ```
    {"query": {"id": "q7", "text": "…"}, "positives": [{"id": "d3", "text": "…", "score": 0.81}],
     "negatives": [{"id": "d9", "text": "…", "score": 0.74, "rank": 2, "source": "dense"}, …]}
    ```

    Scores and ranks that the source does not have are null. `export_formats` describes the other layouts. A reader
    finds a complete file or none. Texts are read once, in blocks, whatever the number of queries.

    Args:
        training_set: the mined examples.
        lines: the JSONL file to write.
        table: the Parquet file to write.
        layout: the form of the rows.

    Returns:
        The number of queries that no row holds because they have too few negatives for the layout.

    Raises:
        OSError: a file cannot be written; its incomplete content is removed.
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
    """Yield each example with its texts, in the form in which `write_negatives` writes records."""
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
