"""Tokenises and embeds a collection's texts, with the results in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embfit.cluster import current_cluster
from embfit.model.cross_encoder import CrossEncoder
from embfit.model.distributed_encoding import encode_spread
from embfit.model.encoder import Encoder, Kind
from embfit.model.encoding import MATRIX, check_written, new_matrix
from embfit.model.fingerprint import tokenizer_fingerprint
from embfit.model.multiprocess_encoding import SHARED_FROM, encode_shared
from embfit.records import Collection, Embeddings
from embfit.store import Store, digest
from embfit.tokens import Tokens
from embfit.vectors import STARTS, Vectors

TOKENS = 1  # version of the store's tokens
EMBEDDINGS = 1  # and of its embeddings
PLURALS = {"query": "queries", "document": "documents"}


def tokenized(encoder: Encoder, collection: Collection, kind: Kind, store: Store, length: int | None = None) -> Tokens:
    """Return the tokens of all queries or documents, memory-mapped; made once for each tokenizer and its settings.

    Args:
        encoder: the encoder that reads the texts.
        collection: the collection of the texts.
        kind: queries or documents.
        store: keeps the tokens.
        length: the most tokens of each text; None is the encoder's length.
    """
    length = length or encoder.length(kind)
    key = {
        "texts": collection.queries_digest if kind == "query" else collection.corpus_digest,
        "tokenizer": tokenizer_fingerprint(encoder.tokenizer),
        **encoder.reading(kind, length),
    }

    def build(folder: Path) -> None:
        texts = collection.query_texts() if kind == "query" else collection.document_texts()
        Tokens.save_blocks(encoder.tokenize_blocks(texts, kind, length), folder)

    return Tokens.load(store.entry("tokens", key, build, version=TOKENS))


def tokenized_for_pairs(ranker: CrossEncoder, collection: Collection, kind: Kind, store: Store) -> Tokens:
    """Return the tokens of all queries or documents as parts of pairs, memory-mapped; made once for a tokenizer.

    All cross-encoders of one tokenizer and length share them, and processes that train one together map the same file.
    """
    key = {
        "texts": collection.queries_digest if kind == "query" else collection.corpus_digest,
        "tokenizer": tokenizer_fingerprint(ranker.tokenizer),
        "max_length": ranker.text_length,
        "special_tokens": False,
    }

    def build(folder: Path) -> None:
        texts = collection.query_texts() if kind == "query" else collection.document_texts()
        Tokens.save_blocks(ranker.tokenize_blocks(texts), folder)

    return Tokens.load(store.entry("tokens", key, build, version=TOKENS))


def embed(
    encoder: Encoder, collection: Collection, kind: Kind, store: Store, rows: Sequence[int] | None = None
) -> Embeddings:
    """Return the embeddings of a collection's queries or documents, memory-mapped.

    After a crash, finished vectors are not computed again.

    Args:
        encoder: the encoder.
        collection: the collection of the texts.
        kind: queries or documents, which also decides the prompt.
        store: keeps the vectors under a key of the texts and everything that the vectors depend on.
        rows: the rows to embed, in this order; None embeds all.
    """
    ids = collection.query_ids if kind == "query" else collection.document_ids
    chosen = np.arange(len(ids)) if rows is None else np.asarray(rows, np.int64)
    key = _key(encoder, collection, kind, None if rows is None else chosen)

    def build(folder: Path) -> None:
        tokens = tokenized(encoder, collection, kind, store)
        tokens = tokens if rows is None else tokens.take(chosen)
        starts = encoder.vector_starts(tokens)
        if starts is not None:
            np.save(folder / STARTS, starts)
        new_matrix(folder, (len(tokens) if starts is None else int(starts[-1]), encoder.width))
        cluster, label = current_cluster(), f"embedding {PLURALS[kind]}"
        if cluster is None or len(tokens) < SHARED_FROM:
            encode_shared(folder, encoder, tokens, label)
        else:
            encode_spread(folder, encoder, tokens, cluster, label)
        check_written(folder)
        for other in folder.iterdir():
            if other.name not in (MATRIX, STARTS):  # the processes' progress and output
                other.unlink()

    folder = store.entry("embeddings", key, build, version=EMBEDDINGS, resumable=True)
    return Embeddings(Vectors.open(folder / MATRIX), folder.name)


def are_stored(encoder: Encoder, collection: Collection, kind: Kind, store: Store) -> bool:
    """Return whether a store has the embeddings of all queries or documents."""
    return store.has("embeddings", _key(encoder, collection, kind, None), version=EMBEDDINGS)


def embeddings_fingerprint(encoder: Encoder, collection: Collection, kind: Kind) -> str:
    """Return the fingerprint of the embeddings of all queries or documents, without computing them."""
    return digest({**_key(encoder, collection, kind, None), "version": EMBEDDINGS})


def _key(encoder: Encoder, collection: Collection, kind: Kind, rows: np.ndarray | None) -> dict[str, str | None]:
    """Return everything that embeddings depend on."""
    return {
        "encoder": encoder.fingerprint(kind),
        "kind": kind,
        "texts": collection.queries_digest if kind == "query" else collection.corpus_digest,
        "rows": None if rows is None else hashlib.sha256(rows.tobytes()).hexdigest(),
    }
