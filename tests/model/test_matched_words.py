"""Shares of the score by word: they add up to it, and spans are where the words are."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from embfit.model.late_interaction import token_spans
from embfit.model.matched_words import NO_WORD, match_words, words_of
from embfit.report.snippets import snippet
from embfit.vectors import Vectors
from tests.conftest import TEXTS, new_late_encoder

DOCUMENTS = ["", "!!! ...", *TEXTS[:4], " ".join(TEXTS)]


@pytest.mark.parametrize("changes", [{}, {"expansion": "none"}, {"query_marker": "", "document_marker": ""}])
def test_shares_add_up_to_the_score_and_each_vector_has_a_token(tokenizer, changes: dict) -> None:
    encoder = new_late_encoder(tokenizer, **changes)
    query = "Why, does " + " ".join(TEXTS[0].split()[:5])
    asked, read = encoder.embed([query], "query"), encoder.embed(DOCUMENTS, "document")
    for kind, texts in {"query": [query], "document": DOCUMENTS}.items():
        spans = [encoder.spans(kind)(text) for text in texts]
        assert [len(one) for one in spans] == encoder.embed(texts, kind).counts.tolist()
    found = match_words(query, DOCUMENTS, asked, read, encoder.spans("query"), encoder.spans("document"))
    scores = asked.scores(read)[0]
    for text, matched, score in zip(DOCUMENTS, found, scores, strict=True):
        assert matched.score == pytest.approx(score, abs=1e-6)
        assert sum(match.share for match in matched.words) + matched.own == pytest.approx(score, abs=1e-6)
        assert [match.word for match in matched.words][:4] == ["Why", ",", "does", query.split()[2]]
        assert {match.found for match in matched.words} <= {None, *words_in(text)}
        assert {text[start:end] for start, end, _ in matched.found} <= set(words_in(text))
        assert all(start < end for start, end, _ in matched.found)


def words_in(text: str) -> list[str]:
    """A text's words."""
    return re.findall(r"\w+", text)


def test_by_hand() -> None:
    asked = Vectors(np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32), np.array([0, 3]))
    read = Vectors(np.array([[0.8, 0.6], [1, 0], [0, 1], [0.6, 0.8]], np.float32), np.array([0, 4]))
    # the query is a marker and a word of two tokens; the document [CLS], two words, and a second token of the second
    spans = {"ab": [None, (0, 1), (1, 2)], "x yz": [None, (0, 1), (2, 3), (3, 4)]}
    (found,) = match_words("ab", ["x yz"], asked, read, spans.__getitem__, spans.__getitem__)
    assert found.own == pytest.approx(1 / 3)  # the marker found x
    ((word, target, share),) = [(match.word, match.found, match.share) for match in found.words]
    assert (word, target) == ("ab", "yz")
    assert share == pytest.approx(2 / 3)
    assert found.found == [(2, 4, pytest.approx(2 / 3))]
    assert found.score == pytest.approx(1.0)


def test_tokens_of_bytes_and_scripts_without_spaces() -> None:
    byte_level = Tokenizer(
        models.BPE(vocab={c: n for n, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[])
    )
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level)
    text = "naïve 😀 q-fever हिन्दी 発熱"
    spans = token_spans(tokenizer, 99, None, frozenset(), False, text)
    numbers, words = words_of(text, spans)
    assert [text[start:end] for start, end in words] == ["naïve", "😀", "q", "-", "fever", "हिन्दी", "発", "熱"]
    assert len(numbers) == len(text.encode())
    assert (numbers == NO_WORD).sum() == 4  # blanks


def test_another_models_vectors_are_refused(tokenizer) -> None:
    encoder, other = new_late_encoder(tokenizer), new_late_encoder(tokenizer, skip=())
    asked, read = encoder.embed(["fever"], "query"), other.embed(["a, b"], "document")
    with pytest.raises(ValueError, match="6 vectors and 5 tokens; they are not of one model"):
        match_words("fever", ["a, b"], asked, read, encoder.spans("query"), encoder.spans("document"))


def test_a_snippet_shows_where_the_score_is(tokenizer) -> None:
    encoder = new_late_encoder(tokenizer, document_length=64)
    text = f"{'word ' * 20}{TEXTS[0]}"
    texts, query = [text], TEXTS[0]
    asked, read = encoder.embed([query], "query"), encoder.embed(texts, "document")
    (found,) = match_words(query, texts, asked, read, encoder.spans("query"), encoder.spans("document"))
    pieces = snippet(text, found, 60)
    shown = "".join(piece for piece, _ in pieces).strip("… ")
    assert shown in text
    assert len(shown) <= 60
    assert 0 < sum(share for _, share in pieces) <= 1
    (only,) = match_words(query, texts, asked, read, encoder.spans("query"), encoder.spans("document"))
    assert "".join(piece for piece, _ in snippet(text, only, 1000)) == text
