"""Negatives that a model takes for relevant: its nearest documents that are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.index.approximate import Method, Search, search_key, searcher
from embfit.miner.candidates import Candidates, CandidateSource, Propose, ranks_of
from embfit.miner.examples import TrainingQueries
from embfit.miner.miner import RankedMiner
from embfit.model import Encoder, Pretrained, embed
from embfit.ragged import Ragged
from embfit.records import Collection
from embfit.store import Store

PAIRS = 16_384  # pairs scored at once


@dataclass(frozen=True)
class DenseMiner(RankedMiner):
    """Mines with an encoder (as ANCE begins: Xiong et al. 2021); `RankedMiner` documents the choice.

    Args:
        relative_margin: a negative scores at most `s - margin·|s|`, where `s` is the lowest score of the query's
            positives; None for no such limit.
        encoder: mines in the place of the model in training, a larger one perhaps; None is that model itself.
        search: `exact`; approximate by `ivf` (quick to build) or `hnsw` (quick to search); `auto` is exact up to a
            million documents and `ivf` above.
    """

    relative_margin: Annotated[float, Field(ge=0, le=1)] | None = 0.05
    encoder: Pretrained | None = None
    search: Method = "auto"

    def source(self, collection: Collection, encoder: Encoder, store: Store) -> CandidateSource:
        """Return the nearest documents of each query; kept in the store under the encoder's fingerprint."""
        chosen = encoder
        if self.encoder is not None:
            chosen = self.encoder.load(*encoder.devices)

        def prepare(examples: TrainingQueries) -> Propose:
            queries = embed(chosen, collection, "query", store, rows=examples.queries.tolist()).vectors.rows  # [Q, D]
            vectors = embed(chosen, collection, "document", store)
            search = searcher(vectors, self.search, store)

            def propose(part: TrainingQueries) -> Candidates:
                return self._nearest(part, queries[examples.places(part)], vectors.vectors.rows, search)

            return propose

        made_by = {"queries": chosen.fingerprint("query"), "documents": chosen.fingerprint("document")}
        search = search_key(self.search, len(collection.corpus))
        return CandidateSource("dense", {"depth": self.depth, "encoder": made_by, **search}, prepare)

    def _nearest(
        self, examples: TrainingQueries, queries: np.ndarray, documents: np.ndarray, search: Search
    ) -> Candidates:
        scores, rows = search(queries, min(self.depth, len(documents)))
        return Candidates(
            source="dense",
            rows=rows,
            ranks=ranks_of(rows),
            scores=scores,
            positive_scores=_pair_scores(queries, documents, examples.positives),
            judged_scores=_pair_scores(queries, documents, examples.judged),
        )


def _pair_scores(queries: np.ndarray, documents: np.ndarray, lists: Ragged) -> np.ndarray:
    """Return the inner product of each query with each document of its list, flat ([values] float32)."""
    owners = lists.owners
    scores = np.empty(len(owners), np.float32)
    for start in range(0, len(owners), PAIRS):
        some = slice(start, start + PAIRS)
        scores[some] = np.einsum("ij,ij->i", queries[owners[some]], documents[lists.values[some]])
    return scores
