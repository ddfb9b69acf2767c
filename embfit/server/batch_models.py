"""The models that the batcher runs: a version's encoder on texts, and a cross-encoder on pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from embfit.model import CrossEncoder, Encoder
from embfit.model.encoder import Kind
from embfit.model.text_pairs import TextPairs
from embfit.server.tokenizing import Tokenizer
from embfit.tokens import Tokens, concatenate
from embfit.vectors import Vectors


class NotFiniteError(Exception):
    """A model gave NaN or infinity."""


@dataclass(frozen=True, eq=False)
class TextBatches:
    """Embeds batches of texts: each gives [v, D] float32, where v is 1 unless the encoder is a late-interaction model.

    Args:
        encoder: embeds the texts.
    """

    encoder: Encoder

    def tokenizer(self, kind: Kind) -> Tokenizer:
        """Return the function that tokenises queries, or documents."""
        return partial(self.encoder.tokenize, kind=kind)

    def compute(self, contents: Sequence[Tokens]) -> list[np.ndarray]:
        """Embed a batch.

        Raises:
            NotFiniteError: a vector is not finite.
        """
        tokens = concatenate(contents)
        starts = self.encoder.vector_starts(tokens)
        bounds = np.arange(len(contents) + 1) if starts is None else starts
        rows = np.empty((int(bounds[-1]), self.encoder.width), np.float32)
        self.encoder.encode_batches(tokens, [np.arange(len(contents))], Vectors(rows, starts), _untold)
        if not np.isfinite(rows).all():
            raise NotFiniteError("the model gave a vector that is not finite (NaN or infinity)")
        return [rows[start:stop] for start, stop in itertools.pairwise(bounds.tolist())]

    def joined(self, tokens: Tokens, parts: Sequence[np.ndarray]) -> Vectors[np.ndarray]:
        """Join the vectors of a request's texts."""
        return Vectors(np.concatenate(parts), self.encoder.vector_starts(tokens))


@dataclass(frozen=True, eq=False)
class PairBatches:
    """Scores batches of pairs of a query and a document.

    Args:
        ranker: scores the pairs.
    """

    ranker: CrossEncoder

    def pairs(self, query: Tokens, documents: Tokens) -> tuple[list[tuple[Tokens, Tokens]], np.ndarray]:
        """Return the pairs of a query and P documents, and each pair's number of tokens ([P] int64)."""
        rows = np.stack([np.zeros(len(documents), np.int64), np.arange(len(documents))], axis=1)
        lengths = self.ranker.pairs(query, documents, rows).lengths
        return [(query, document) for document in split(documents)], lengths

    def compute(self, contents: Sequence[tuple[Tokens, Tokens]]) -> list[float]:
        """Score a batch.

        Raises:
            UserError: a score is not finite.
        """
        queries, documents = (concatenate([pair[side] for pair in contents]) for side in (0, 1))
        rows = np.repeat(np.arange(len(contents))[:, None], 2, axis=1)
        read: TextPairs = self.ranker.pairs(queries, documents, rows)
        return [float(score) for score in self.ranker.score_tokens(read)]


def _untold(amount: int = 1) -> None:
    """Show no progress."""


def split(tokens: Tokens) -> list[Tokens]:
    """Return the tokens of each text separately."""
    return [tokens.part(row, row + 1) for row in range(len(tokens))]
