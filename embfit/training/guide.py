"""A guide is a frozen encoder that masks doubtful negatives: those that it scores nearly as high as the positive.

Mined and in-batch negatives may be relevant but unjudged. The guide embeds all texts once, before training, so
it costs one matrix product a step (GISTEmbed, Solatorio 2024, runs the encoder in every step).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embfit.model import Encoder, Pretrained, embed, encoder_at, frozen
from embfit.records import Collection
from embfit.store import Store
from embfit.vectors import Vectors

BASE = "base"  # names the encoder that is trained, with its weights before training


@dataclass(frozen=True)
class Guide:
    """Vectors of a frozen encoder.

    Args:
        query_rows: [q] rows of the embedded queries, ascending.
        queries: the vectors of those queries.
        documents: the vectors of all documents.
        margin: a negative scores at most the lowest of its query's positives less this.
        fingerprint: the fingerprint of the guide's vectors.
    """

    query_rows: np.ndarray
    queries: Vectors[np.ndarray]
    documents: Vectors[np.ndarray]
    margin: float
    fingerprint: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle vectors that are in a file as the file's name, so that other processes map the same memory."""
        sides = [_place(side) for side in (self.queries, self.documents)]
        return _open, (self.query_rows, *sides, self.margin, self.fingerprint)

    @property
    def digest(self) -> str:
        """Identifies everything that the masks depend on."""
        return f"{self.fingerprint} {self.margin}"

    def vectors(self, queries: np.ndarray, documents: np.ndarray) -> tuple[Vectors[Tensor], Vectors[Tensor]]:
        """Return the vectors of Q query rows and of D document rows."""
        found = self.queries.take(np.searchsorted(self.query_rows, queries)), self.documents.take(documents)
        one, other = (Vectors(torch.from_numpy(np.array(side.flat())), side.starts) for side in found)
        return one, other


def doubtful(queries: Vectors[Tensor], documents: Vectors[Tensor], positives: Tensor, margin: float) -> Tensor:
    """Return the pairs that may be relevant by the guide's scores, without the positives ([Q, D] bool).

    Args:
        queries: the guide's vectors of Q queries.
        documents: the guide's vectors of D documents.
        positives: [Q, D] bool.
        margin: a pair is doubtful when it scores above the lowest positive of its query less this.
    """
    scores = queries.scores(documents)  # [Q, D]
    lowest = scores.masked_fill(~positives, float("inf")).amin(dim=1, keepdim=True)  # [Q, 1]
    return (scores > lowest - margin) & ~positives


def make_guide(
    name: str, margin: float, encoder: Encoder, collection: Collection, query_rows: np.ndarray, store: Store
) -> Guide:
    """Embed the training queries and all documents with the guide, or read their vectors from the store.

    Args:
        name: `base`, or another encoder's folder or name on the Hub.
        margin: a pair is doubtful when it scores above the lowest positive of its query less this.
        encoder: the encoder to be trained, before training.
        collection: the collection of the texts.
        query_rows: the rows of the training queries, ascending.
        store: keeps the vectors.
    """
    guide = encoder if name == BASE else encoder_at(name, Pretrained(path=name)).load(*encoder.devices)
    with frozen(guide):
        queries = embed(guide, collection, "query", store, rows=query_rows.tolist())
        documents = embed(guide, collection, "document", store)
    return Guide(
        query_rows, queries.vectors, documents.vectors, margin, f"{queries.fingerprint} {documents.fingerprint}"
    )


def _place(side: Vectors[np.ndarray]) -> Vectors[np.ndarray] | tuple[str, np.ndarray | None, int | None]:
    """Return the file's name if vectors are in a file, else the vectors: another process can load either."""
    if not isinstance(side.rows, np.memmap):
        return side
    return str(side.rows.filename), side.starts, side.dim


def _open(
    query_rows: np.ndarray,
    queries: Vectors[np.ndarray] | tuple[str, np.ndarray | None, int | None],
    documents: Vectors[np.ndarray] | tuple[str, np.ndarray | None, int | None],
    margin: float,
    fingerprint: str,
) -> Guide:
    sides = [
        side if isinstance(side, Vectors) else Vectors(np.load(side[0], mmap_mode="r"), *side[1:])
        for side in (queries, documents)
    ]
    return Guide(query_rows, sides[0], sides[1], margin, fingerprint)
