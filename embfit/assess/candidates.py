"""How fast an encoder embeds here, and what its vectors weigh."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from embfit.model import Encoder
from embfit.records import Collection

WARM_UP = 8  # documents embedded before the clock starts
BYTES = 4  # of a float32


@dataclass(frozen=True)
class ModelCandidate:
    """What a base model costs.

    Args:
        system: its name among the systems measured.
        source: where its weights came from.
        parameters: of the model.
        max_length: tokens that it reads of a text.
        dimensions: of a vector.
        bytes_per_document: of a float32 vector.
        documents_per_second: embedded here, one sample of whole documents.
        truncated: share of the documents that are longer than it reads.
    """

    system: str
    source: str
    parameters: int
    max_length: int
    dimensions: int
    bytes_per_document: int
    documents_per_second: float
    truncated: float


def measure_candidate(
    system: str, encoder: Encoder, collection: Collection, truncated: np.ndarray, documents: int, seed: int
) -> ModelCandidate:
    """Time an encoder on a sample of the documents, as they are: tokenising, padding and all.

    Args:
        system: its name.
        encoder: timed on its own device.
        collection: has the documents.
        truncated: [N] bool; which of them it cuts off.
        documents: in the sample, at most.
        seed: of the sample.
    """
    rows = np.random.default_rng(seed).permutation(len(collection.corpus))[:documents]
    texts = list(collection.document_texts(rows.tolist()))
    encoder.encode(texts[:WARM_UP], "document")
    started = time.monotonic()
    encoder.encode(texts, "document")
    seconds = time.monotonic() - started
    return ModelCandidate(
        system=system,
        source=encoder.source,
        parameters=sum(weight.numel() for weight in encoder.parameters()),
        max_length=encoder.max_length,
        dimensions=encoder.width,
        bytes_per_document=encoder.width * BYTES,
        documents_per_second=len(texts) / max(seconds, 1e-9),
        truncated=float(truncated.mean()),
    )
