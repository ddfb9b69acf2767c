"""Digests of texts, which find equal texts without reading them again, and the rule for equal queries."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

CONTENT = "content"  # the column with the digest of title and text, which an encoder reads
BODY = "body"  # the column with the digest of the text without its title
DIGESTS = pa.schema({CONTENT: pa.binary(), BODY: pa.binary()})
DIGEST_BYTES = 16


def document_text(title: str, text: str) -> str:
    """Return a document's text for an encoder: its title, a space and its text (BEIR's convention)."""
    return f"{title} {text}" if title else text


def normalise(query: str) -> str:
    """Return a query's text without irrelevant differences: case, width, white space and final punctuation."""
    bare = " ".join(unicodedata.normalize("NFKC", query).casefold().split())
    return bare.rstrip(" .?!") or bare


def digest_text(text: str) -> bytes:
    """Return a digest that only equal texts share."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def digest_documents(titles: Sequence[str], texts: Sequence[str]) -> pa.RecordBatch:
    """Return the digests of documents, in the columns of `DIGESTS`."""
    bodies = [digest_text(text) for text in texts]
    contents = [
        digest_text(document_text(title, text)) if title else body
        for title, text, body in zip(titles, texts, bodies, strict=True)
    ]
    return pa.record_batch([pa.array(contents, pa.binary()), pa.array(bodies, pa.binary())], schema=DIGESTS)


def digest_array(digests: pa.ChunkedArray) -> np.ndarray:
    """Return a column of digests as an array ([N] bytes of one length), which can be sorted and searched."""
    column = digests.cast(pa.binary(DIGEST_BYTES)).combine_chunks()
    found: np.ndarray = np.frombuffer(column.buffers()[1] or b"", f"S{DIGEST_BYTES}")[column.offset :][: len(column)]
    return found


def first_rows(digests: pa.ChunkedArray) -> np.ndarray:
    """Return for each row the first row with the same digest ([N] int32).

    Sorting takes about forty bytes a row; a dict would take four times as many.
    """
    names = digest_array(digests)
    order = np.argsort(names, kind="stable").astype(np.int32)  # rows with one digest are adjacent and ascend
    begins = np.ones(len(order), bool)
    begins[1:] = names[order[1:]] != names[order[:-1]]
    first = np.empty_like(order)
    first[order] = order[begins][np.cumsum(begins, dtype=np.int32) - 1]
    return first
