"""Which words matched: what each word of a query found in a document, and what it gives of the score.

Late interaction scores a document by the mean of its best matches, so a score is a sum that can be shown. Words are put
together from their tokens by where these are in the text. What is of no word (the marker, `[CLS]`, `[SEP]`, the mask
tokens of query expansion) is told as one share: left out, the words would seem to decide more than they do.
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

NO_WORD = -1  # of a token that is of no word of the text, such as `[CLS]`


def match_words(
    query: str,
    documents: Sequence[str],
    asked: Vectors[np.ndarray],
    read: Vectors[np.ndarray],
    query_spans: Spans,
    document_spans: Spans,
) -> list[MatchedWords]:
    """Return how each document's score comes about.

    Args:
        query: the query's text.
        documents: N texts.
        asked: the query's vectors, one text.
        read: the documents' vectors, as they are searched.
        query_spans: says where in the query the token of each vector is.
        document_spans: says the same of the documents.

    Raises:
        ValueError: a text has another number of vectors than of tokens.
    """
    matches = best_matches(asked, read)
    of_query, words = words_of(query, query_spans(query))
    _check(of_query, len(matches.similarities))
    shares = matches.similarities.astype(np.float64) / max(1, len(matches.similarities))  # [Vq, N]
    found = []
    for place, text in enumerate(documents):
        of_document, spans = words_of(text, document_spans(text))
        _check(of_document, int(read.counts[place]))
        if not len(of_document):  # nothing to find, and a score of -inf
            found.append(MatchedWords(float(matches.scores[place]), (), 0.0, ()))
            continue
        targets = of_document[matches.positions[:, place]]  # [Vq] the document's word that each vector found
        found.append(_explained(query, text, of_query, words, targets, spans, shares[:, place]))
    return found


def words_of(text: str, spans: Sequence[tuple[int, int] | None]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Put tokens together to words.

    Args:
        text: what was read.
        spans: the characters of T tokens, ascending; None for tokens that are not of the text.

    Returns:
        The number of each token's word ([T] int64, `NO_WORD` for those that have none), and the words' spans.
    """
    numbers = np.full(len(spans), NO_WORD, np.int64)
    words: list[tuple[int, int]] = []
    for token, span in enumerate(spans):
        if span is None or not text[span[0] : span[1]].strip():
            continue
        start, end = span
        start += len(text[start:end]) - len(text[start:end].lstrip())  # some tokenizers count the space in front
        end = start + len(text[start:end].rstrip())
        if words and (start < words[-1][1] or (start == words[-1][1] and is_within_word(text, start))):
            words[-1] = (words[-1][0], max(end, words[-1][1]))  # bytes of one character have the same span
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
    """Add up the shares of vectors ([Vq]) by the query's word and by the document's word that they found."""
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
