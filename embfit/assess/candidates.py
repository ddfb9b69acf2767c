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
        system: names the model among the systems measured.
        source: says where the model's weights came from.
        parameters: how many parameters the model has.
        max_length: how many tokens of a text the model reads.
        dimensions: how many dimensions a vector has.
        bytes_per_document: how many bytes a document's float32 vector takes.
        documents_per_second: how many documents this machine embeds per second; a sample of whole documents was timed.
        truncated: which share of the documents is longer than the model reads.
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
        system: names the model among the systems measured.
        encoder: is timed on its own device.
        collection: holds the documents.
        truncated: is true for each document that the encoder cuts off; [N] bool.
        documents: how many documents the sample has at most.
        seed: decides which documents the sample has.
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
