"""The hits of a search, cached in the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embfit.index.protocol import Hits
from embfit.store import Store

VERSION = 2  # of the stored rankings: 2 scores pair by pair


def stored(store: Store, key: dict[str, Any], find: Callable[[], Hits]) -> tuple[Hits, bool]:
    """Return hits from the store, and whether they were there already."""
    reused = True

    def build(folder: Path) -> None:
        nonlocal reused
        reused = False
        scores, rows = find()
        np.save(folder / "scores.npy", scores)
        np.save(folder / "rows.npy", rows)

    folder = store.entry("rankings", key, build, version=VERSION)
    return (np.load(folder / "scores.npy"), np.load(folder / "rows.npy")), reused
