"""Encodes texts on the workers of a cluster, with the same vectors as on one machine.

The plan of batches is cut into parts by the number of tokens, independent of the number of workers: part i of n has
every n-th batch from the i-th on, like a process of `multiprocess_encoding`. A worker receives the encoder once and the
tokens of each part, and returns vectors. This process writes them into the matrix, so workers need no shared disk.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from embfit.atomic_files import write_text
from embfit.cluster import Cluster, Do
from embfit.errors import UserError
from embfit.model.back_ends.graph import GraphPrecision
from embfit.model.encoder import Encoder
from embfit.model.encoding import MATRIX, SECONDS, WHOLE_PARTS, finished_batches, identify
from embfit.model.precision import by_pytorch
from embfit.progress import progress
from embfit.ragged import places_of
from embfit.tokens import Tokens
from embfit.vectors import Vectors

PART_TOKENS = 1 << 18  # tokens of a part: about 20 s of MiniLM on one core, and less than a second on a GPU


@dataclass(frozen=True)
class EncodingWork:
    """The work of encoding, as workers receive it.

    Args:
        encoder: the encoder.
        precision: the number format of the hidden states, as in the vectors' fingerprint.
    """

    encoder: Encoder
    precision: GraphPrecision

    def prepare(self, device: str) -> Do:
        """Return a function that computes the vectors of a part on a device."""
        encoder = self.encoder.to(torch.device(device))
        encoder.settings = replace(encoder.settings, precision=by_pytorch(self.precision))
        return partial(_encode, encoder)


@dataclass(frozen=True)
class EncodingPart:
    """Some batches of a plan.

    Args:
        tokens: the texts, batch after batch.
        sizes: the number of texts in each batch.
    """

    tokens: Tokens
    sizes: Sequence[int]


def encode_spread(folder: Path, encoder: Encoder, tokens: Tokens, cluster: Cluster, label: str) -> None:
    """Embed tokenised texts into the folder's matrix on the workers of a cluster.

    Args:
        folder: the folder of the matrix, which also records the finished parts.
        encoder: the encoder.
        tokens: N texts, with their prompts.
        cluster: the cluster.
        label: the label of the progress.

    Raises:
        UserError: the encoder uses a converted back end, or the workers are lost; encoded vectors are kept.
    """
    if encoder.graph is not None:
        raise UserError(
            f"model.backend={encoder.back_end} is a file in this machine's store, which workers do not have; set "
            "model.backend=torch, or cluster=null"
        )
    plan = encoder.plan(tokens, torch.device(cluster.device))
    identity = identify(tokens, plan)
    parts = max(1, min(len(plan), round(int(tokens.starts[-1]) / PART_TOKENS)))
    finished = finished_batches(folder, identity, len(plan))
    done = [part for part in range(parts) if finished[part::parts].all()]
    starts = encoder.vector_starts(tokens)
    matrix = np.lib.format.open_memmap(folder / MATRIX, "r+")
    written = time.monotonic()

    def part_of_plan(number: int) -> EncodingPart:
        batches = plan[number::parts]
        return EncodingPart(tokens.take(np.concatenate(batches)), [len(batch) for batch in batches])

    def write_down() -> None:
        matrix.flush()  # before the marker: parts that it lists must be on the disk
        write_text(folder / WHOLE_PARTS, json.dumps({"plan": identity, "parts": parts, "done": done}))

    texts_done = sum(len(batch) for part in done for batch in plan[part::parts])
    missing = sorted(set(range(parts)) - set(done))
    with progress(label, len(tokens), "texts", completed=texts_done) as advance:
        try:
            for number, rows in cluster.spread(EncodingWork(encoder, encoder.computes_in), part_of_plan, missing):
                texts = np.concatenate(plan[number::parts])
                matrix[texts if starts is None else places_of(starts, texts)] = rows
                done.append(number)
                advance(len(texts))
                if time.monotonic() - written > SECONDS:
                    write_down()
                    written = time.monotonic()
        finally:
            write_down()


def _encode(encoder: Encoder, part: EncodingPart) -> np.ndarray:
    """Return the vectors of a part's texts, [V, D] float32."""
    starts = encoder.vector_starts(part.tokens)
    rows = np.empty((len(part.tokens) if starts is None else int(starts[-1]), encoder.width), np.float32)
    batches = np.split(np.arange(len(part.tokens)), np.cumsum(part.sizes)[:-1])
    encoder.encode_batches(part.tokens, batches, Vectors(rows, starts), lambda amount=1: None)
    return rows
