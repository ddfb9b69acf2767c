"""Negatives that a model mistakes for relevant: the nearest documents that are not relevant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.index import VectorIndex, open_index
from embfit.index.approximate import Method, search_key
from embfit.miner.candidates import Candidates, CandidateSource, Propose, ranks_of
from embfit.miner.examples import TrainingQueries
from embfit.miner.miner import RankedMiner
from embfit.model import Encoder, EncoderChoice, embed
from embfit.ragged import Ragged
from embfit.records import Collection
from embfit.store import Store
from embfit.vectors import Vectors

PAIRS = 16_384  # pairs scored at once


@dataclass(frozen=True)
class DenseMiner(RankedMiner):
    """Mines with an encoder, as ANCE does at its start (Xiong et al. 2021).

    `RankedMiner` documents the other parameters.

    Args:
        relative_margin: a negative may score at most `s - margin·|s|`, where `s` is the lowest score of the query's
            positives; None sets no such limit.
        encoder: the encoder that mines, such as a larger one; None uses the model in training.
        search: how documents are searched: `exact`, or approximately by `ivf` (quick to build) or `hnsw` (quick to
            search); `tokens`, for several vectors a document, searches their compressed vectors; `auto` is exact up to
            a million documents and `ivf` above, and exact where a document has several vectors.
    """

    relative_margin: Annotated[float, Field(ge=0, le=1)] | None = 0.05
    encoder: EncoderChoice | None = None
    search: Method = "auto"

    def source(self, collection: Collection, encoder: Encoder, store: Store) -> CandidateSource:
        """Return each query's nearest documents as a source; its key holds the encoder's fingerprint."""
        chosen = encoder
        if self.encoder is not None:
            chosen = self.encoder.load(*encoder.devices, store=store)

        def prepare(examples: TrainingQueries) -> Propose:
            queries = embed(chosen, collection, "query", store, rows=examples.queries.tolist()).vectors
            index = open_index(embed(chosen, collection, "document", store), self.search, store)

            def propose(part: TrainingQueries) -> Candidates:
                return self._nearest(part, queries.take(examples.places(part)), index)

            return propose

        made_by = {"queries": chosen.fingerprint("query"), "documents": chosen.fingerprint("document")}
        search = search_key(self.search, len(collection.corpus))
        return CandidateSource("dense", {"depth": self.depth, "encoder": made_by, **search}, prepare)

    def _nearest(self, examples: TrainingQueries, queries: Vectors[np.ndarray], index: VectorIndex) -> Candidates:
        scores, rows = index.search(queries, min(self.depth, len(index)), "searching")
        return Candidates(
            source="dense",
            rows=rows,
            ranks=ranks_of(rows),
            scores=scores,
            positive_scores=_scores(queries, examples.positives, index),
            judged_scores=_scores(queries, examples.judged, index),
        )


def _scores(queries: Vectors[np.ndarray], lists: Ragged, index: VectorIndex) -> np.ndarray:
    """Return each query's scores of the documents in its list ([values] float32)."""
    owners, rows = lists.owners, lists.values[:, None]
    scores = np.empty(len(owners), np.float32)
    for start in range(0, len(owners), PAIRS):
        some = slice(start, start + PAIRS)
        scores[some] = index.score(queries.take(owners[some]), rows[some])[:, 0]
    return scores
