"""Open a saved index of any kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from embfit.errors import UserError
from embfit.index.approximate import ApproximateIndex
from embfit.index.compressed import CompressedIndex
from embfit.index.databases.database_index import DatabaseBuilder, DatabaseIndex
from embfit.index.databases.milvus import MilvusBuilder
from embfit.index.databases.pgvector import PgvectorBuilder
from embfit.index.exact import ExactIndex
from embfit.index.files import SETTINGS, read_settings
from embfit.index.funnel import FunnelIndex
from embfit.index.lexical import BM25Index
from embfit.index.protocol import Index
from embfit.index.token_vectors import TokenIndex

HOSTED: Mapping[str, type[DatabaseBuilder]] = {one.kind: one for one in (PgvectorBuilder, MilvusBuilder)}

KINDS: Mapping[str, Callable[[Path], Index[Any]]] = {
    "exact": ExactIndex.load,
    "approximate": ApproximateIndex.load,
    "compressed": CompressedIndex.load,
    "funnel": FunnelIndex.load,
    "words": BM25Index.load,
    "tokens": TokenIndex.load,
}


def load_index(folder: Path, check: bool = True) -> Index[Any]:
    """Open an index that `save` wrote; its vectors or BM25 scores are memory-mapped.

    Args:
        folder: the index's folder.
        check: for an index in a database, whether to check that its collection is the one that was published; without
            the check, the database is not contacted.

    Raises:
        UserError: the folder holds no index, or one of an unknown kind; or its collection is missing from the database,
            or is another one.
        UnavailableError: its database does not answer.
    """
    hosted = load_hosted(folder)
    if hosted is not None:
        if check:
            hosted.check()
        return hosted
    kind = _kind(folder)
    if kind not in KINDS:
        kinds = ", ".join([*KINDS, *HOSTED])
        raise UserError(f"{folder / SETTINGS}: there is no index of kind {kind!r}; the kinds are {kinds}")
    return KINDS[kind](folder)


def load_hosted(folder: Path) -> DatabaseIndex | None:
    """Open an index in a database, without checking its collection; None if it is of another kind.

    Raises:
        UserError: the folder holds no index.
    """
    if (choice := HOSTED.get(_kind(folder))) is None:
        return None
    return choice(**read_settings(folder)["database"]).index(folder)


def _kind(folder: Path) -> str:
    return str(read_settings(folder).get("kind"))
