"""Encoding into a file, from where a crash or Ctrl-C left it: but for the last seconds, no text is encoded twice.

Batches are planned for all texts at once, as a function of their lengths alone, so it makes no difference to a single
number whether one process encodes them all, several share them, or another run goes on with the rest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from embfit.model.encoder import Encoder
from embfit.progress import Advance, progress
from embfit.store import write_text
from embfit.tokens import Tokens

MATRIX = "matrix.npy"
SECONDS = 20.0  # of work that a crash may lose


def encode_into(folder: Path, encoder: Encoder, tokens: Tokens, label: str, part: int = 0, parts: int = 1) -> None:
    """Embed tokenised texts into `matrix.npy` ([N, D] float32), or the batches of one of several equal parts.

    Args:
        folder: has the matrix, and how far each part is (`encoded-PART-of-PARTS.json`).
        encoder: of all parts.
        tokens: N texts, with their prompts.
        label: of the progress shown.
        part: which of the parts, from 0.
        parts: how many share the batches.
    """
    batches = encoder.plan(tokens)[part::parts]
    marker = folder / f"encoded-{part}-of-{parts}.json"
    done = json.loads(marker.read_text(encoding="utf-8"))["batches"] if marker.is_file() else 0
    matrix = np.lib.format.open_memmap(folder / MATRIX, "r+")
    with progress(label, sum(map(len, batches)), "texts") as advance:
        if done:
            advance(sum(map(len, batches[:done])))
        while done < len(batches):
            done = _some(encoder, tokens, batches, done, matrix, advance)
            matrix.flush()  # before the marker: what it says is done must be on the disk
            write_text(marker, json.dumps({"batches": done}))


def new_matrix(folder: Path, shape: tuple[int, int]) -> None:
    """Make the matrix that parts write into, unless an interrupted encoding has left it."""
    path = folder / MATRIX
    if not path.is_file():
        temporary = path.with_suffix(".writing")
        np.lib.format.open_memmap(temporary, "w+", np.float32, shape).flush()
        temporary.replace(path)


def _some(
    encoder: Encoder, tokens: Tokens, batches: list[np.ndarray], done: int, matrix: np.ndarray, advance: Advance
) -> int:
    """Encode for `SECONDS`; return how many batches are done then."""
    until = time.monotonic() + SECONDS
    taken = 0

    def some() -> Iterator[np.ndarray]:
        nonlocal taken
        for batch in batches[done:]:
            taken += 1
            yield batch
            if time.monotonic() >= until:
                return

    encoder.encode_batches(tokens, some(), matrix, advance)
    return done + taken
