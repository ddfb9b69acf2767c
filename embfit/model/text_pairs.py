"""Pairs of a query and a document for a cross-encoder, joined from texts that are tokenised once each.

A tokenizer reads the two texts of a pair separately and joins them with special tokens, so a pair's ids follow from its
texts' ids: a query with a hundred candidates is tokenised once, and so is a document of a hundred queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from embfit.ragged import lengths_of
from embfit.tokens import Tokens, tokenizer_lock

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PairTemplate:
    """The tokens that a tokenizer puts around two texts.

    Args:
        before: the ids before the first text.
        between: the ids between the two texts.
        after: the ids after the second text.
        types: the token types of the five parts: before, first, between, second, after. Parts outside the texts have
            one type per id.
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[tuple[int, ...], int, tuple[int, ...], int, tuple[int, ...]]

    @property
    def special(self) -> int:
        """The number of tokens that belong to no text."""
        return len(self.before) + len(self.between) + len(self.after)


def read_template(tokenizer: PreTrainedTokenizerBase) -> PairTemplate:
    """Find out, from an example, which tokens a fast tokenizer puts around two texts.

    Raises:
        ValueError: it gives no tokens for the example's texts.
    """
    with tokenizer_lock(tokenizer):
        found = tokenizer("a", "a", truncation=False, padding=False).encodings[0]
    ids, owners, types = found.ids, found.sequence_ids, found.type_ids
    if 0 not in owners or 1 not in owners:
        raise ValueError("the tokenizer reads no token in a text")
    first, second = owners.index(0), owners.index(1)
    first_end = first + owners.count(0)
    second_end = second + owners.count(1)
    parts = (slice(0, first), slice(first_end, second), slice(second_end, None))
    before, between, after = (tuple(ids[part]) for part in parts)
    before_types, between_types, after_types = (tuple(types[part]) for part in parts)
    kinds = (before_types, types[first], between_types, types[second], after_types)
    return PairTemplate(before, between, after, kinds)


@dataclass(frozen=True)
class TextPairs:
    """P pairs of texts.

    Args:
        template: the tokenizer's way of joining two texts.
        queries: the queries' tokens, without special ones.
        documents: the documents' tokens, without special ones.
        rows: [P, 2] int64, a query row and a document row each.
        max_length: the most tokens of a pair, including special tokens; the longer text is cut first, as in
            transformers.
    """

    template: PairTemplate
    queries: Tokens
    documents: Tokens
    rows: np.ndarray
    max_length: int

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: np.ndarray | Sequence[int]) -> TextPairs:
        """Return some pairs, in the order given; the texts are shared."""
        return TextPairs(
            self.template, self.queries, self.documents, self.rows[np.asarray(chosen, int)], self.max_length
        )

    def alone(self, chosen: np.ndarray) -> TextPairs:
        """Return some pairs, in the order given, with only their own texts."""
        queries, first = np.unique(self.rows[chosen, 0], return_inverse=True)
        documents, second = np.unique(self.rows[chosen, 1], return_inverse=True)
        rows = np.stack([first.reshape(-1), second.reshape(-1)], axis=1)
        return TextPairs(
            self.template, self.queries.take(queries), self.documents.take(documents), rows, self.max_length
        )

    @cached_property
    def text_lengths(self) -> np.ndarray:
        """The tokens kept of query and document ([P, 2] int64)."""
        queries, documents = self.rows[:, 0], self.rows[:, 1]
        lengths = np.stack(
            [lengths_of(self.queries.starts, queries), lengths_of(self.documents.starts, documents)], axis=1
        )
        return longest_first(lengths, self.max_length - self.template.special)

    @cached_property
    def lengths(self) -> np.ndarray:
        """The tokens of each pair, including special tokens ([P] int64)."""
        lengths: np.ndarray = self.text_lengths.sum(axis=1) + self.template.special
        return lengths

    def padded(self, chosen: np.ndarray, pad: int, left: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return `input_ids`, `attention_mask` and `token_type_ids` ([n, longest] int64) of some pairs.

        Args:
            chosen: the numbers of the pairs, [n].
            pad: the tokenizer's padding id.
            left: whether to pad on the left, as decoder models expect.
        """
        longest = int(self.lengths[chosen].max())
        ids = np.full((len(chosen), longest), pad, np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, pair in enumerate(chosen):
            length = int(self.lengths[pair])
            place = slice(longest - length, longest) if left else slice(0, length)
            ids[row, place], types[row, place] = self._joined(int(pair))
            mask[row, place] = 1
        return torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(types)

    def _joined(self, pair: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and types of one pair."""
        first, second = self.text_lengths[pair]
        query, document = self.rows[pair]
        first_start, second_start = self.queries.starts[query], self.documents.starts[document]
        template = self.template
        before, first_type, between, second_type, after = template.types
        ids = (
            template.before,
            self.queries.ids[first_start : first_start + first],
            template.between,
            self.documents.ids[second_start : second_start + second],
            template.after,
        )
        types = (before, np.full(first, first_type), between, np.full(second, second_type), after)
        return np.concatenate(ids), np.concatenate(types)


def longest_first(lengths: np.ndarray, limit: int) -> np.ndarray:
    """Return the kept lengths of two texts each ([P, 2]) under a limit on their sum: the longer one is cut first.

    If both are longer than half of the limit, each keeps half, and the longer one gets the odd token.
    """
    short, long = lengths.min(axis=1), lengths.max(axis=1)
    short_kept = np.minimum(short, limit // 2)
    short_kept = np.where(short + long <= limit, short, short_kept)
    long_kept = np.minimum(long, limit - short_kept)
    second_is_longer = lengths[:, 0] <= lengths[:, 1]
    first = np.where(second_is_longer, short_kept, long_kept)
    second = np.where(second_is_longer, long_kept, short_kept)
    return np.stack([first, second], axis=1)
