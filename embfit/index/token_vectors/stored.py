"""An index of token vectors in the store, for searches over vectors that are in the store too."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from embfit.index.token_vectors.index import TokenIndex
from embfit.index.token_vectors.settings import TokenIndexing
from embfit.records import Embeddings
from embfit.store import Store

VERSION = 1  # of the stored indexes


def stored_token_index(documents: Embeddings, settings: TokenIndexing, store: Store) -> TokenIndex:
    """Return an index of documents' vectors; build it unless the store has it.

    Args:
        documents: their vectors, several each.
        settings: how vectors are stored and searched.
        store: keeps the index by the vectors' fingerprint and the settings.

    Raises:
        ValueError: the vectors do not fit the format (`TokenIndex.build`).
    """
    vectors, source = documents.vectors, documents.fingerprint

    def build(folder: Path) -> None:
        TokenIndex.build(vectors, folder, settings, source, label="indexing")

    key = {"vectors": source, "dim": vectors.width, **token_index_key(settings)}
    return TokenIndex.load(store.entry("indexes", key, build, version=VERSION), source)


def token_index_key(settings: TokenIndexing) -> dict[str, Any]:
    """Return all that an index of token vectors depends on besides the vectors, for the store's keys."""
    import faiss  # takes a third of a second to import

    return {"search": "tokens", **asdict(settings), "version": VERSION, "faiss": faiss.__version__}
