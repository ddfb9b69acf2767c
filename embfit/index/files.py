"""The files that saved indexes share: the kind and settings, and the vectors of those that keep them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embfit.atomic_files import replacing, write_text
from embfit.errors import UserError
from embfit.vectors import STARTS, Vectors

SETTINGS = "index.json"  # written last: a folder that has it is complete
VECTORS = "vectors.npy"
CHUNK = 32_768  # vectors written at once


def write_settings(folder: Path, kind: str, settings: Mapping[str, Any]) -> None:
    """Write the kind of an index, which tells `load_index` how to open it, and its settings (JSON values)."""
    write_text(folder / SETTINGS, json.dumps({"kind": kind, **settings}, indent=2) + "\n")


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the kind and the settings of a saved index.

    Raises:
        UserError: the folder holds no index.
    """
    try:
        found: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no index: {SETTINGS} cannot be read ({error}); build it again") from error
    return found


def write_vectors(folder: Path, vectors: Vectors[np.ndarray]) -> None:
    """Write vectors as they are compared (cut ones are written cut), in chunks."""
    count = len(vectors) if vectors.starts is None else int(vectors.starts[-1])
    with replacing(folder / VECTORS) as path:
        matrix = np.lib.format.open_memmap(path, "w+", np.float32, (count, vectors.width))
        written = 0
        for _, part in vectors.chunks(CHUNK):
            rows = part.flat()
            matrix[written : written + len(rows)] = rows
            written += len(rows)
        matrix.flush()
    if vectors.starts is not None:
        with replacing(folder / STARTS) as path, path.open("wb") as file:
            np.save(file, vectors.starts)
