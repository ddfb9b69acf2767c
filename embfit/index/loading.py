"""Opening a saved index, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from embfit.errors import UserError
from embfit.index.approximate import ApproximateIndex
from embfit.index.compressed import CompressedIndex
from embfit.index.exact import ExactIndex
from embfit.index.files import SETTINGS, read_settings
from embfit.index.lexical import BM25Index
from embfit.index.protocol import Index
from embfit.index.token_vectors import TokenIndex

KINDS: Mapping[str, Callable[[Path], Index[Any]]] = {
    "exact": ExactIndex.load,
    "approximate": ApproximateIndex.load,
    "compressed": CompressedIndex.load,
    "words": BM25Index.load,
    "tokens": TokenIndex.load,
}


def load_index(folder: Path) -> Index[Any]:
    """Open an index that `save` wrote; its vectors, and the words' scores, are memory-mapped.

    Raises:
        UserError: the folder holds no index, or one of a kind that this version does not know.
    """
    kind = str(read_settings(folder).get("kind"))
    if kind not in KINDS:
        raise UserError(f"{folder / SETTINGS}: there is no index of kind {kind!r}; the kinds are {', '.join(KINDS)}")
    return KINDS[kind](folder)
