"""Mined examples in the layouts that other trainers read, sentence-transformers among them.

Columns stand in the order that sentence-transformers' losses expect. Texts are those that embfit's encoders read,
without prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import pyarrow as pa

ExportFormat: TypeAlias = Literal["records", "triplet", "n-tuple", "labeled-list"]
"""`records`: a row per query with everything known; `triplet`: a row per pair of a positive and a negative;
`n-tuple`: a row per positive with as many negatives as were wanted; `labeled-list`: a row per query with all documents
and a label (1 or 0) for each."""

_TEXT = {"id": pa.string(), "text": pa.string()}
_SCORED = {**_TEXT, "score": pa.float32()}


def schema(layout: ExportFormat, wanted: int) -> pa.Schema:
    """Return the columns of a layout; `wanted` is the number of negatives per query, which `n-tuple` needs."""
    if layout == "records":
        return pa.schema(
            {
                "query": pa.struct(_TEXT),
                "positives": pa.list_(pa.struct(_SCORED)),
                "negatives": pa.list_(pa.struct({**_SCORED, "rank": pa.int32(), "source": pa.string()})),
            }
        )
    if layout == "labeled-list":
        return pa.schema({"query": pa.string(), "documents": pa.list_(pa.string()), "labels": pa.list_(pa.int32())})
    negatives = ["negative"] if layout == "triplet" else [f"negative_{place + 1}" for place in range(wanted)]
    return pa.schema(dict.fromkeys(["query", "positive", *negatives], pa.string()))


def rows(example: Mapping[str, Any], layout: ExportFormat, wanted: int) -> list[dict[str, Any]]:
    """Return an example as rows of a layout; there are none if it has too few negatives.

    Args:
        example: an example in the form that `negatives_file.readable` yields.
        layout: the form of the rows.
        wanted: the number of negatives per query, which `n-tuple` needs.
    """
    if layout == "records":
        return [dict(example)]
    query = example["query"]["text"]
    positives, negatives = ([document["text"] for document in example[kind]] for kind in ("positives", "negatives"))
    if layout == "labeled-list":
        labels = [1] * len(positives) + [0] * len(negatives)
        return [{"query": query, "documents": [*positives, *negatives], "labels": labels}]
    if layout == "triplet":
        return [
            {"query": query, "positive": positive, "negative": negative}
            for positive in positives
            for negative in negatives
        ]
    if len(negatives) < wanted:
        return []
    numbered = {f"negative_{place}": text for place, text in enumerate(negatives[:wanted], 1)}
    return [{"query": query, "positive": positive, **numbered} for positive in positives]
