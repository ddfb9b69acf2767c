"""How fast an encoder embeds on this machine, and how large its vectors are."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from embfit.model import Encoder
from embfit.records import Collection

WARM_UP = 8  # documents embedded before the clock starts
BYTES = 4  # in a float32


@dataclass(frozen=True)
class ModelCandidate:
    """What a base model costs.

    Args:
        system: the model's name among the systems measured.
        source: where the model's weights came from.
        parameters: the number of the model's parameters.
        max_length: the tokens that the model reads of a text.
        dimensions: the dimensions of a vector.
        bytes_per_document: the bytes of a document's float32 vector.
        documents_per_second: the documents embedded per second on this machine, measured on a sample of whole ones.
        truncated: the share of documents that are longer than the model reads.
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
    """Time an encoder on a sample of whole documents, including tokenising and padding.

    Args:
        system: the model's name among the systems measured.
        encoder: the encoder, which is timed on its own device.
        collection: the collection with the documents.
        truncated: [N] bool, true for the documents that the encoder cuts off.
        documents: the documents in the sample at most.
        seed: the seed of the sample.
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
