"""Matched words: for each word of a query, the word that it matched in a document and its share of the score.

Late interaction scores a document by the mean of its best matches, so a score is a sum whose parts can be shown. Words
are joined from tokens by their character spans. Tokens outside words (the marker, `[CLS]`, `[SEP]`, the mask tokens of
query expansion) are shown as one share: without it, the words would seem to matter more than they do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from embfit.index.inner_products import best_matches
from embfit.index.terms import is_within_word
from embfit.model.late_interaction import Spans
from embfit.records import MatchedWords, WordMatch
from embfit.vectors import Vectors

NO_WORD = -1  # the word number of a token outside words, such as `[CLS]`


def match_words(
    query: str,
    documents: Sequence[str],
    asked: Vectors[np.ndarray],
    read: Vectors[np.ndarray],
    query_spans: Spans,
    document_spans: Spans,
) -> list[MatchedWords]:
    """Return the matched words behind each document's score.

    Args:
        query: the query's text.
        documents: N texts.
        asked: the query's vectors, one text.
        read: the documents' vectors, in the form in which they are searched.
        query_spans: returns the span of each vector's token in the query.
        document_spans: the same for documents.

    Raises:
        ValueError: a text's number of vectors differs from its number of tokens.
    """
    matches = best_matches(asked, read)
    of_query, words = words_of(query, query_spans(query))
    _check(of_query, len(matches.similarities))
    shares = matches.similarities.astype(np.float64) / max(1, len(matches.similarities))  # [Vq, N]
    found = []
    for place, text in enumerate(documents):
        of_document, spans = words_of(text, document_spans(text))
        _check(of_document, int(read.counts[place]))
        if not len(of_document):  # a document without vectors has score -inf
            found.append(MatchedWords(float(matches.scores[place]), (), 0.0, ()))
            continue
        targets = of_document[matches.positions[:, place]]  # [Vq] the document's word that each vector matched
        found.append(_explained(query, text, of_query, words, targets, spans, shares[:, place]))
    return found


def words_of(text: str, spans: Sequence[tuple[int, int] | None]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Join tokens to words.

    Args:
        text: the text.
        spans: the character spans of T tokens, ascending; None for tokens outside the text.

    Returns:
        The number of each token's word ([T] int64, `NO_WORD` for those that have none), and the words' spans.
    """
    numbers = np.full(len(spans), NO_WORD, np.int64)
    words: list[tuple[int, int]] = []
    for token, span in enumerate(spans):
        if span is None or not text[span[0] : span[1]].strip():
            continue
        start, end = span
        start += len(text[start:end]) - len(text[start:end].lstrip())  # some tokenizers include the space before a word
        end = start + len(text[start:end].rstrip())
        if words and (start < words[-1][1] or (start == words[-1][1] and is_within_word(text, start))):
            words[-1] = (words[-1][0], max(end, words[-1][1]))  # tokens for bytes of one character have the same span
        else:
            words.append((start, end))
        numbers[token] = len(words) - 1
    return numbers, words


def _explained(
    query: str,
    document: str,
    of_query: np.ndarray,
    words: Sequence[tuple[int, int]],
    targets: np.ndarray,
    spans: Sequence[tuple[int, int]],
    shares: np.ndarray,
) -> MatchedWords:
    """Sum the shares of vectors ([Vq]) by the query's word, and by the matched word of the document."""
    by_word: list[dict[int, float]] = [defaultdict(float) for _ in words]
    by_target: dict[int, float] = defaultdict(float)
    for word, target, share in zip(of_query.tolist(), targets.tolist(), shares.tolist(), strict=True):
        if word != NO_WORD:
            by_word[word][target] += share
            if target != NO_WORD:
                by_target[target] += share
    matched = []
    for (start, end), found in zip(words, by_word, strict=True):
        most = max(found, key=found.__getitem__)
        name = None if most == NO_WORD else document[slice(*spans[most])]
        matched.append(WordMatch(query[start:end], name, sum(found.values())))
    own = float(shares[of_query == NO_WORD].sum())
    return MatchedWords(
        score=float(shares.sum()),
        words=matched,
        own=own,
        found=[(*spans[target], share) for target, share in sorted(by_target.items())],
    )


def _check(numbers: np.ndarray, vectors: int) -> None:
    if len(numbers) != vectors:
        raise ValueError(f"a text has {vectors} vectors and {len(numbers)} tokens; they are not of one model")
