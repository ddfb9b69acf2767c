"""A frozen encoder's opinion on who is whose negative: what it takes for nearly as relevant as the positive is none.

Mined and in-batch negatives may be relevant and merely unjudged. The guide embeds all texts once, before training, so
its word costs one matrix product a step (GISTEmbed, Solatorio 2024, asks it in every step).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embfit.model import Encoder, Pretrained, embed, frozen
from embfit.records import Collection
from embfit.store import Store

BASE = "base"  # the encoder that is trained, as it was before


@dataclass(frozen=True)
class Guide:
    """Vectors of a frozen encoder.

    Args:
        query_rows: [q] rows of the queries it has embedded, ascending.
        queries: [q, G] float32 their vectors.
        documents: [N, G] float32, of all documents.
        margin: a negative scores at most the lowest of its query's positives less this.
        fingerprint: identifies what made the vectors.
    """

    query_rows: np.ndarray
    queries: np.ndarray
    documents: np.ndarray
    margin: float
    fingerprint: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle vectors from a file as its name: other processes map the same memory."""
        arrays = [
            str(array.filename) if isinstance(array, np.memmap) else array for array in (self.queries, self.documents)
        ]
        return _open, (self.query_rows, *arrays, self.margin, self.fingerprint)

    @property
    def digest(self) -> str:
        """Identifies all that it says."""
        return f"{self.fingerprint} {self.margin}"

    def vectors(self, queries: np.ndarray, documents: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the vectors of query rows and document rows ([Q, G], [D, G])."""
        found = np.array(self.queries[np.searchsorted(self.query_rows, queries)]), np.array(self.documents[documents])
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def doubtful(queries: Tensor, documents: Tensor, positives: Tensor, margin: float) -> Tensor:
    """Return the pairs that a guide takes for relevant, positives left out ([Q, D] bool).

    Args:
        queries: [Q, G] the guide's vectors.
        documents: [D, G] likewise.
        positives: [Q, D] bool.
        margin: a pair is doubtful when it scores above the lowest positive of its query less this.
    """
    scores = queries @ documents.T  # [Q, D]
    lowest = scores.masked_fill(~positives, float("inf")).amin(dim=1, keepdim=True)  # [Q, 1]
    return (scores > lowest - margin) & ~positives


def make_guide(
    name: str, margin: float, encoder: Encoder, collection: Collection, query_rows: np.ndarray, store: Store
) -> Guide:
    """Embed what a guide is asked about; found in the store where mining or another run has embedded it.

    Args:
        name: `base`, or another encoder's folder or name on the Hub.
        margin: below the lowest positive.
        encoder: the one to be trained, as it is before.
        collection: the texts.
        query_rows: rows of the training queries, ascending.
        store: keeps vectors.
    """
    guide = encoder if name == BASE else Pretrained(path=name).load(*encoder.devices)
    with frozen(guide):
        queries = embed(guide, collection, "query", store, rows=query_rows.tolist())
        documents = embed(guide, collection, "document", store)
    return Guide(
        query_rows,
        queries.vectors.rows,
        documents.vectors.rows,
        margin,
        f"{queries.fingerprint} {documents.fingerprint}",
    )


def _open(
    query_rows: np.ndarray, queries: np.ndarray | str, documents: np.ndarray | str, margin: float, fingerprint: str
) -> Guide:
    opened = [np.load(part, mmap_mode="r") if isinstance(part, str) else part for part in (queries, documents)]
    return Guide(query_rows, opened[0], opened[1], margin, fingerprint)
