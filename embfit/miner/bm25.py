"""Negatives that share words with the query without answering it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.index.lexical import PACKAGES, BM25Index, Language, Method, index_words
from embfit.miner.candidates import Candidates, ranks_of
from embfit.miner.examples import Examples
from embfit.miner.mining import mine
from embfit.miner.sampling import Sampling
from embfit.miner.selection import Selection, check_window
from embfit.model import Encoder
from embfit.ragged import Ragged
from embfit.records import Collection, TrainingSet
from embfit.store import Store


@dataclass(frozen=True)
class BM25:
    """Mines by words, without the encoder (DPR: Karpukhin et al. 2020).

    Args:
        negatives: per query at most; judged negatives come first and count.
        skip: ranks left out at the top, where unjudged positives are most likely.
        depth: the last rank looked at.
        relative_margin: a negative scores at most `s - margin·|s|`, where `s` is the lowest BM25 score of the query's
            positives (0 if they share no word with it: nothing passes); None for no such limit.
        absolute_margin: a negative scores at most `s - margin`; None for no such limit.
        max_score: a negative scores at most this; None for no such limit.
        sampling: `top` takes the hardest that are left, `uniform` any of them.
        seed: of `uniform`.
        language: of the stemmer and the stop words; None for neither.
        k1: how slowly repetitions of a word stop counting.
        b: how much a long document is held back.
        method: variant of the formula.

    Raises:
        ConfigError: fewer ranks lie between `skip` and `depth` than negatives are wanted.
    """

    negatives: Annotated[int, Field(ge=1)] = 2
    skip: Annotated[int, Field(ge=0)] = 0
    depth: Annotated[int, Field(ge=1)] = 100
    relative_margin: Annotated[float, Field(ge=0, le=1)] | None = None
    absolute_margin: Annotated[float, Field(ge=0)] | None = None
    max_score: float | None = None
    sampling: Sampling = "top"
    seed: int = 0
    language: Language | None = "english"
    k1: Annotated[float, Field(ge=0)] = 1.5
    b: Annotated[float, Field(ge=0, le=1)] = 0.75
    method: Method = "lucene"

    def __post_init__(self) -> None:
        check_window(self.negatives, self.skip, self.depth)

    def mine(self, collection: Collection, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the training set with BM25's negatives; the encoder plays no part."""
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
            return self.candidates(examples, collection, store)

        words = {"language": self.language, "k1": self.k1, "b": self.b, "method": self.method}
        key = {"depth": self.depth, "packages": PACKAGES, **words, **selection.key}
        return mine(collection, store, "bm25", key, propose, selection)

    def candidates(self, examples: Examples, collection: Collection, store: Store) -> Iterator[Candidates]:
        """Yield each block's best documents that share a word with the query."""
        index = index_words(collection, store, self.language, self.k1, self.b, self.method)
        for _, block in examples.blocks():
            texts = list(collection.query_texts(block.queries.tolist()))
            scores, rows = index.search(texts, min(self.depth, len(index)))
            yield Candidates(
                source="bm25",
                rows=rows,
                ranks=ranks_of(rows),
                scores=scores,
                positive_scores=_pair_scores(index, texts, block.positives),
                judged_scores=_pair_scores(index, texts, block.judged),
            )


def _pair_scores(index: BM25Index, texts: Sequence[str], documents: Ragged) -> np.ndarray:
    """Return each query's scores of the documents of its list, flat ([values] float32)."""
    return np.concatenate([index.scores(text)[rows] for text, rows in zip(texts, documents.lists(), strict=True)])
