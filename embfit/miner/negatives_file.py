"""A training set as a file that a person can read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embfit.progress import track
from embfit.records import Collection, TrainingSet

BLOCK = 1024  # examples whose texts are read at once


def write_negatives(training_set: TrainingSet, path: Path) -> None:
    """Write one JSON object a line: a query, its positives and its negatives, with their texts.

    ```
    {"query": {"id": "q7", "text": "…"}, "positives": [{"id": "d3", "text": "…", "score": 0.81}],
     "negatives": [{"id": "d9", "text": "…", "score": 0.74, "rank": 2, "source": "dense"}, …]}
    ```

    Scores and ranks that the source does not have are null. A reader finds the whole file or none.

    Raises:
        OSError: the file cannot be written; what was written of it is removed.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            lines = track(_lines(training_set), "writing negatives", total=len(training_set), unit="queries")
            for line in lines:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp makes it private
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _lines(training_set: TrainingSet) -> Iterator[Mapping[str, Any]]:
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
