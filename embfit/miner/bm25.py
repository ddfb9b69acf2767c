"""Negatives that share words with the query without answering it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from embfit.index.language import LanguageChoice, language_of
from embfit.index.lexical import BM25Index, Method, index_words, words_key
from embfit.miner.candidates import Candidates, CandidateSource, Propose, ranks_of
from embfit.miner.examples import TrainingQueries
from embfit.miner.miner import RankedMiner
from embfit.model import Encoder
from embfit.records import Collection
from embfit.store import Store


@dataclass(frozen=True)
class BM25Miner(RankedMiner):
    """Mines by words, without the encoder (DPR: Karpukhin et al. 2020).

    `RankedMiner` documents the other parameters. A positive that shares no word with its query scores 0, so under a
    margin no candidate passes.

    Args:
        language: the language of the stemmer and the stop words; auto is that of the documents, None uses neither.
        k1: how much repetitions of a word count; with a higher value they count for longer.
        b: how much long documents are penalised, from 0 (not at all) to 1.
        method: the variant of the BM25 formula.
    """

    language: LanguageChoice = "auto"
    k1: Annotated[float, Field(ge=0)] = 1.5
    b: Annotated[float, Field(ge=0, le=1)] = 0.75
    method: Method = "lucene"

    def source(self, collection: Collection, encoder: Encoder, store: Store) -> CandidateSource:
        """Return each query's best documents that share a word with it; the encoder is not used."""
        language = language_of(self.language, collection, store, "miner.language=auto")

        def prepare(examples: TrainingQueries) -> Propose:
            index = index_words(collection, store, language, self.k1, self.b, self.method)

            def propose(part: TrainingQueries) -> Candidates:
                return self._best(part, list(collection.query_texts(part.queries.tolist())), index)

            return propose

        words = words_key(language, self.k1, self.b, self.method)
        return CandidateSource("bm25", {"depth": self.depth, **words}, prepare)

    def _best(self, examples: TrainingQueries, texts: Sequence[str], index: BM25Index) -> Candidates:
        k = min(self.depth, len(index))
        scores, rows, known = index.search_and_score(texts, k, [examples.positives, examples.judged], "searching words")
        positive_scores, judged_scores = known
        return Candidates("bm25", rows, ranks_of(rows), scores, positive_scores, judged_scores)
