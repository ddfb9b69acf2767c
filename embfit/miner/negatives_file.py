"""A training set as files that a person can read: JSON lines, and Parquet for tools that load tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embfit.progress import track
from embfit.records import Collection, TrainingSet
from embfit.store import replacing

BLOCK = 1024  # examples whose texts are in memory at once

_TEXT = {"id": pa.string(), "text": pa.string()}
_SCORED = {**_TEXT, "score": pa.float32()}
PARQUET = pa.schema(
    {
        "query": pa.struct(_TEXT),
        "positives": pa.list_(pa.struct(_SCORED)),
        "negatives": pa.list_(pa.struct({**_SCORED, "rank": pa.int32(), "source": pa.string()})),
    }
)


def write_negatives(training_set: TrainingSet, lines: Path, table: Path) -> None:
    """Write one JSON object a line, and the same as rows of a Parquet table: a query, its positives and its negatives.

    ```
    {"query": {"id": "q7", "text": "…"}, "positives": [{"id": "d3", "text": "…", "score": 0.81}],
     "negatives": [{"id": "d9", "text": "…", "score": 0.74, "rank": 2, "source": "dense"}, …]}
    ```

    Scores and ranks that the source does not have are null. A reader finds a whole file or none. Texts are read once,
    in blocks, whatever the number of queries.

    Raises:
        OSError: a file cannot be written; what was written of it is removed.
    """
    with replacing(lines) as text, replacing(table) as rows, pq.ParquetWriter(rows, PARQUET) as parquet:
        objects = track(readable(training_set), "writing negatives", total=len(training_set), unit="queries")
        with text.open("w", encoding="utf-8") as file:
            while block := list(islice(objects, BLOCK)):
                for one in block:
                    file.write(json.dumps(one, ensure_ascii=False) + "\n")
                parquet.write_table(pa.Table.from_pylist(block, PARQUET))


def readable(training_set: TrainingSet) -> Iterator[dict[str, Any]]:
    """Yield each example with its texts, as `write_negatives` writes it."""
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
