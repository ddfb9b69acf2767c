"""Encodes texts into a file, and goes on where a crash or Ctrl-C stopped: only the last seconds of work are repeated.

Batches are planned once for all texts, so it makes no difference whether one process encodes them all, several share
them, workers of a cluster do, or another run continues with the rest in another of these ways; but for the last bit of
a number, where they compute with other threads. Plans of different devices differ: what was done by another plan is
done again.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.lib.format import write_array_header_1_0

from embfit.atomic_files import replacing, write_text
from embfit.errors import UserError
from embfit.model.encoder import Encoder
from embfit.progress import Advance, progress
from embfit.tokens import Tokens
from embfit.vectors import Vectors

MATRIX = "matrix.npy"
WHOLE_PARTS = "encoded-parts.json"
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
    identity = identify(tokens, plan)
    finished = finished_batches(folder, identity, len(plan))[part::parts]
    missing = [number for number, is_done in enumerate(finished) if not is_done]
    matrix = np.lib.format.open_memmap(folder / MATRIX, "r+")
    vectors = Vectors(matrix, encoder.vector_starts(tokens))
    total = sum(map(len, batches))
    left = sum(len(batches[number]) for number in missing)
    with progress(label, total, "texts", completed=total - left) as advance:
        while missing:
            done = _some(encoder, tokens, [batches[number] for number in missing], vectors, advance)
            missing = missing[done:]
            matrix.flush()  # before the marker: what it says is done must be on the disk
            said = {"plan": identity, "batches": missing[0] if missing else len(batches)}
            write_text(folder / f"encoded-{part}-of-{parts}.json", json.dumps(said))


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


def identify(tokens: Tokens, plan: Sequence[np.ndarray]) -> str:
    """Identify a plan: which texts are in which batch, and how long they are."""
    sizes = np.array([len(batch) for batch in plan], np.int64)
    found = hashlib.sha256(sizes.tobytes())
    for rows in plan:
        found.update(np.asarray(rows, np.int64).tobytes())
    found.update(np.asarray(tokens.lengths, np.int64).tobytes())
    return found.hexdigest()


def finished_batches(folder: Path, identity: str, batches: int) -> np.ndarray:
    """Return which batches of a plan are in the matrix ([batches] bool), whoever wrote them.

    Args:
        folder: has markers of parts in order (`encoded-PART-of-PARTS.json`, how many batches of it are done), and of
            whole parts in any order (`encoded-parts.json`). Those of other plans are passed over.
        identity: the plan's.
        batches: how many it has.
    """
    finished = np.zeros(batches, bool)
    for marker in folder.glob("encoded-*.json"):
        found = json.loads(marker.read_text(encoding="utf-8"))
        if found.get("plan") != identity:
            continue
        if marker.name == WHOLE_PARTS:
            for part in found["done"]:
                finished[part :: found["parts"]] = True
        elif name := re.fullmatch(r"encoded-(\d+)-of-(\d+)\.json", marker.name):
            finished[int(name[1]) :: int(name[2])][: found["batches"]] = True
    return finished


def _some(
    encoder: Encoder,
    tokens: Tokens,
    batches: Sequence[np.ndarray],
    out: Vectors[np.ndarray],
    advance: Advance,
) -> int:
    """Encode for `SECONDS`; return how many batches that did."""
    until = time.monotonic() + SECONDS
    taken = 0

    def some() -> Iterator[np.ndarray]:
        nonlocal taken
        for batch in batches:
            taken += 1
            yield batch
            if time.monotonic() >= until:
                return

    encoder.encode_batches(tokens, some(), out, advance)
    return taken
