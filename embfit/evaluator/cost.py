"""What searching with an encoder costs: bytes of its index, and milliseconds on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from embfit.model.encoder import Encoder
from embfit.records import Collection
from embfit.vectors import Vectors

TIMED_QUERIES = 20  # searched one at a time
TIMED_DOCUMENTS = 64  # encoded together
WARM_UP = 4  # documents


@dataclass(frozen=True)
class SearchCost:
    """What searching with an encoder costs.

    Args:
        bytes_per_token: bytes of a stored vector if a text has several vectors; None if it has one.
        bytes_per_document: bytes of the index for each document, on average.
        bytes: bytes of the whole index.
        encode_ms_per_document: time to encode a document, in a batch with others.
        query_ms_p50: median time to encode and search a single query.
        query_ms_p95: 95th percentile of the same.
    """

    bytes_per_token: float | None
    bytes_per_document: float
    bytes: int
    encode_ms_per_document: float
    query_ms_p50: float
    query_ms_p95: float


def measure_cost(
    encoder: Encoder,
    collection: Collection,
    rows: list[int],
    size: int,
    bytes_per_vector: float,
    search: Callable[[Vectors[np.ndarray], int], object],
) -> dict[str, float | None]:
    """Time an encoder and its search, and report them with the size of the index.

    Args:
        encoder: encodes queries and documents.
        collection: has their texts.
        rows: the queries' rows; the first ones are timed.
        size: bytes of the index.
        bytes_per_vector: bytes of a stored vector.
        search: searches for one query, given its vectors and its row.

    Returns:
        The fields of `SearchCost` as JSON values.
    """
    drawn = np.random.default_rng(0).permutation(len(collection.corpus))[:TIMED_DOCUMENTS]
    texts = list(collection.document_texts(drawn.tolist()))
    encoder.embed(texts[:WARM_UP], "document")
    started = time.perf_counter()
    encoder.embed(texts, "document")
    encoding = time.perf_counter() - started
    timed = []
    timed_rows = rows[: TIMED_QUERIES + 1]
    for row, text in zip(timed_rows, collection.query_texts(timed_rows), strict=True):
        started = time.perf_counter()
        search(encoder.embed([text], "query"), row)
        timed.append(1000 * (time.perf_counter() - started))
    p50, p95 = np.percentile(timed[1:] or timed, [50, 95])  # the first warms up
    return asdict(
        SearchCost(
            bytes_per_token=None if encoder.single else bytes_per_vector,
            bytes_per_document=size / len(collection.corpus),
            bytes=size,
            encode_ms_per_document=1000 * encoding / len(texts),
            query_ms_p50=float(p50),
            query_ms_p95=float(p95),
        )
    )
