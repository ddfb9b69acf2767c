"""Negatives that the model itself takes for relevant: its nearest documents that are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.index.exact import search
from embfit.miner.candidates import Candidates, ranks_of
from embfit.miner.examples import Examples
from embfit.miner.mining import mine
from embfit.miner.sampling import Sampling
from embfit.miner.selection import Selection, check_window
from embfit.model import Encoder, embed
from embfit.ragged import Ragged
from embfit.records import Collection, TrainingSet
from embfit.store import Store

PAIRS = 16_384  # pairs scored at once


@dataclass(frozen=True)
class Dense:
    """Mines with the encoder that is to be trained, by exact search (as ANCE begins: Xiong et al. 2021).

    Args:
        negatives: per query at most; judged negatives come first and count.
        skip: ranks left out at the top, where unjudged positives are most likely.
        depth: the last rank looked at.
        relative_margin: a negative scores at most `s - margin·|s|`, where `s` is the lowest score of the query's
            positives; None for no such limit.
        absolute_margin: a negative scores at most `s - margin`; None for no such limit.
        max_score: a negative scores at most this; None for no such limit.
        sampling: `top` takes the hardest that are left, `uniform` any of them.
        seed: of `uniform`.

    Raises:
        ConfigError: fewer ranks lie between `skip` and `depth` than negatives are wanted.
    """

    negatives: Annotated[int, Field(ge=1)] = 2
    skip: Annotated[int, Field(ge=0)] = 0
    depth: Annotated[int, Field(ge=1)] = 100
    relative_margin: Annotated[float, Field(ge=0, le=1)] | None = 0.05
    absolute_margin: Annotated[float, Field(ge=0)] | None = None
    max_score: float | None = None
    sampling: Sampling = "top"
    seed: int = 0

    def __post_init__(self) -> None:
        check_window(self.negatives, self.skip, self.depth)

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the training set with the encoder's negatives; kept in the store under the encoder's fingerprint."""
        selection = Selection(
            negatives=self.negatives,
            skip=self.skip,
            relative_margin=self.relative_margin,
            absolute_margin=self.absolute_margin,
            max_score=self.max_score,
            sampling=self.sampling,
            seed=self.seed,
        )

        def propose(examples: Examples) -> Iterator[Candidates]:
            return self.candidates(examples, collection, encoder, store)

        key = {"depth": self.depth, "encoder": encoder.fingerprint, **selection.key}
        return mine(collection, store, "dense", key, propose, selection)

    def candidates(
        self, examples: Examples, collection: Collection, encoder: Encoder, store: Store
    ) -> Iterator[Candidates]:
        """Yield each block's nearest documents."""
        queries = embed(encoder, collection, "query", store, rows=examples.queries.tolist()).matrix  # [Q, D]
        documents = embed(encoder, collection, "document", store).matrix  # [N, D]
        for where, block in examples.blocks():
            scores, rows = search(queries[where], documents, min(self.depth, len(documents)))
            yield Candidates(
                source="dense",
                rows=rows,
                ranks=ranks_of(rows),
                scores=scores,
                positive_scores=_pair_scores(queries[where], documents, block.positives),
                judged_scores=_pair_scores(queries[where], documents, block.judged),
            )


def _pair_scores(queries: np.ndarray, documents: np.ndarray, lists: Ragged) -> np.ndarray:
    """Return the inner product of each query with each document of its list, flat ([values] float32)."""
    owners = lists.owners
    scores = np.empty(len(owners), np.float32)
    for start in range(0, len(owners), PAIRS):
        some = slice(start, start + PAIRS)
        scores[some] = np.einsum("ij,ij->i", queries[owners[some]], documents[lists.values[some]])
    return scores
