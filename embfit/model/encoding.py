"""Encodes texts into a file, and resumes after a crash or Ctrl-C: only the last seconds of work are repeated.

Batches are planned once for all texts. So the result is the same if one process encodes all texts, if several processes
or workers of a cluster share them, or if another run continues in another of these ways, except for the last bit of a
number where the number of threads differs. Plans of different devices differ, and work of another plan is done again.
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
SECONDS = 20.0  # seconds of work that a crash may lose
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
        folder: the folder of the matrix and of each part's progress (`encoded-PART-of-PARTS.json`).
        encoder: the encoder.
        tokens: N texts, with their prompts.
        plan: the batches of all parts, as numbers of texts.
        label: the label of the progress.
        part: the number of this part, from 0.
        parts: the number of parts.
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
            matrix.flush()  # before the marker: batches that it counts must be on the disk
            said = {"plan": identity, "batches": missing[0] if missing else len(batches)}
            write_text(folder / f"encoded-{part}-of-{parts}.json", json.dumps(said))


def new_matrix(folder: Path, shape: tuple[int, int]) -> None:
    """Make the matrix for all parts, filled with NaN, unless an interrupted encoding has left one."""
    path = folder / MATRIX
    if path.is_file():
        return
    rows, width = shape
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
    ):  # written, not mapped, so that a full disk raises an error here
        kind = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        write_array_header_1_0(file, kind)
        for start in range(0, rows, BLOCK):
            file.write(np.full((min(BLOCK, rows - start), width), np.nan, np.float32).data)


def check_written(folder: Path) -> None:
    """Check that every text has its vectors.

    Raises:
        UserError: a text has no vector, or one of NaN; the parts' progress is then removed.
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
    """Identify a plan by the texts of each batch and their lengths."""
    sizes = np.array([len(batch) for batch in plan], np.int64)
    found = hashlib.sha256(sizes.tobytes())
    for rows in plan:
        found.update(np.asarray(rows, np.int64).tobytes())
    found.update(np.asarray(tokens.lengths, np.int64).tobytes())
    return found.hexdigest()


def finished_batches(folder: Path, identity: str, batches: int) -> np.ndarray:
    """Return which batches of a plan are finished ([batches] bool), by any kind of process.

    Args:
        folder: the folder with the markers of parts (`encoded-PART-of-PARTS.json`, the number of finished batches) and
            of whole parts in any order (`encoded-parts.json`). Markers of other plans are ignored.
        identity: the plan's identity.
        batches: the number of batches.
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
    """Encode for `SECONDS`; return the number of finished batches."""
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
