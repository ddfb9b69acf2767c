"""Encoding into a file, from where a crash or Ctrl-C left it: but for the last seconds, no text is encoded twice.

Batches are planned once for all texts, so it makes no difference whether one process encodes them all, several share
them, or another run continues with the rest; but for the last bit of a number, where they compute with other threads.
Plans of different devices differ: what was done by another plan is done again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.lib.format import write_array_header_1_0

from embfit.errors import UserError
from embfit.model.encoder import Encoder
from embfit.progress import Advance, progress
from embfit.store import replacing, write_text
from embfit.tokens import Tokens
from embfit.vectors import Vectors

MATRIX = "matrix.npy"
SECONDS = 20.0  # of work that a crash may lose
BLOCK = 4096  # rows written at a time


def encode_into(
    folder: Path,
    encoder: Encoder,
    tokens: Tokens,
    plan: Sequence[np.ndarray],
    label: str,
    part: int = 0,
    parts: int = 1,
) -> None:
    """Embed tokenised texts into `matrix.npy` ([V, D] float32), or the batches of one of several equal parts.

    Args:
        folder: has the matrix, and how far each part is (`encoded-PART-of-PARTS.json`).
        encoder: makes the vectors.
        tokens: N texts, with their prompts.
        plan: the batches of all parts, as numbers of texts.
        label: the name under which progress is shown.
        part: which of the parts this is, from 0.
        parts: how many share the batches.
    """
    batches = plan[part::parts]
    identity = _identity(tokens, plan)
    marker = folder / f"encoded-{part}-of-{parts}.json"
    done = _done(marker, identity)
    matrix = np.lib.format.open_memmap(folder / MATRIX, "r+")
    vectors = Vectors(matrix, encoder.vector_starts(tokens))
    done_before = sum(map(len, batches[:done]))
    with progress(label, sum(map(len, batches)), "texts", completed=done_before) as advance:
        while done < len(batches):
            done = _some(encoder, tokens, batches, done, vectors, advance)
            matrix.flush()  # before the marker: what it says is done must be on the disk
            write_text(marker, json.dumps({"plan": identity, "batches": done}))


def new_matrix(folder: Path, shape: tuple[int, int]) -> None:
    """Make the matrix that parts write into, of NaN, unless an interrupted encoding has left it."""
    path = folder / MATRIX
    if path.is_file():
        return
    rows, width = shape
    with replacing(path) as temporary, temporary.open("wb") as file:  # not mapped: a full disk is an error here
        kind = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        write_array_header_1_0(file, kind)
        for start in range(0, rows, BLOCK):
            file.write(np.full((min(BLOCK, rows - start), width), np.nan, np.float32).data)


def check_written(folder: Path) -> None:
    """Make sure that every text has its vectors.

    Raises:
        UserError: a text has none, or one of NaN; how far the parts were is forgotten.
    """
    vectors = Vectors.open(folder / MATRIX)
    missing = np.flatnonzero(np.isnan(vectors.rows[:, 0]))
    if len(missing):
        for marker in folder.glob("encoded-*.json"):
            marker.unlink()
        texts = missing if vectors.starts is None else np.searchsorted(vectors.starts, missing, side="right") - 1
        raise UserError(
            f"{len(np.unique(texts))} of {len(vectors)} texts have no vector, or one of NaN (the first: row "
            f"{int(texts[0])}); run again to encode them again, and set model.precision=fp32 if that is no help"
        )


def _identity(tokens: Tokens, plan: Sequence[np.ndarray]) -> str:
    """Identify a plan: which texts are in which batch, and how long they are."""
    sizes = np.array([len(batch) for batch in plan], np.int64)
    found = hashlib.sha256(sizes.tobytes())
    for rows in plan:
        found.update(np.asarray(rows, np.int64).tobytes())
    found.update(np.asarray(tokens.lengths, np.int64).tobytes())
    return found.hexdigest()


def _done(marker: Path, identity: str) -> int:
    """Return how many batches of a plan are done: none where the marker is of another plan."""
    if not marker.is_file():
        return 0
    found = json.loads(marker.read_text(encoding="utf-8"))
    return int(found["batches"]) if found.get("plan") == identity else 0


def _some(
    encoder: Encoder,
    tokens: Tokens,
    batches: Sequence[np.ndarray],
    done: int,
    out: Vectors[np.ndarray],
    advance: Advance,
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

    encoder.encode_batches(tokens, some(), out, advance)
    return done + taken
