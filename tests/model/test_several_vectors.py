"""An encoder that gives several vectors for each text, in the engine that encodes, and in the store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from embfit.errors import UserError
from embfit.model import BiEncoder, Encoder, embed, encoding, multiprocess_encoding
from embfit.model import encoder as encoder_module
from embfit.records import Collection
from embfit.store import Store
from embfit.tokens import Tokens
from tests.conftest import TEXTS


class TokenVectors(BiEncoder):
    """Gives one vector for each token but the two special ones."""

    def vector_counts(self, tokens: Tokens) -> np.ndarray | None:
        return np.asarray(tokens.lengths - 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, bf16: bool = False) -> Tensor:
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask.bool() & (input_ids != 2) & (input_ids != 3)  # [CLS] and [SEP]
        return torch.nn.functional.normalize(hidden[kept].float(), dim=-1)


@pytest.fixture
def token_vectors(tiny_encoder: Encoder) -> TokenVectors:
    return TokenVectors(tiny_encoder.backbone, tiny_encoder.tokenizer, tiny_encoder.settings, source="tiny").eval()


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "default_token_budget", lambda device: 40)
    monkeypatch.setattr(encoding, "SECONDS", 0.0)


def alone(encoder: Encoder, text: str) -> np.ndarray:
    """Compute one text's vectors by itself."""
    ids, mask = encoder.tokenize([text], "document").padded(np.array([0]), 0)
    with torch.inference_mode():
        return encoder(ids, mask).numpy()


def test_texts_have_as_many_vectors_as_their_tokens_say(token_vectors: TokenVectors) -> None:
    vectors = token_vectors.embed([*TEXTS, ""], "document")
    expected = [alone(token_vectors, text) for text in TEXTS]
    assert vectors.counts.tolist() == [*map(len, expected), 0]
    np.testing.assert_allclose(vectors.rows, np.concatenate(expected), atol=1e-6)


def test_blocks_are_put_together(token_vectors: TokenVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = token_vectors.embed(TEXTS, "document")
    blocks = [token_vectors.tokenize(TEXTS[start : start + 5], "document") for start in (0, 5, 10)]
    monkeypatch.setattr(token_vectors, "tokenize_blocks", lambda texts, kind: iter(blocks))
    parts = token_vectors.embed(TEXTS, "document")
    np.testing.assert_allclose(parts.rows, whole.rows, atol=1e-6)
    assert parts.starts is not None
    np.testing.assert_array_equal(parts.starts, whole.starts)


def test_no_text_has_no_vectors(token_vectors: TokenVectors) -> None:
    vectors = token_vectors.embed([], "query")
    assert (len(vectors), vectors.rows.shape, vectors.single) == (0, (0, 32), False)


def test_the_store_keeps_where_they_begin(
    token_vectors: TokenVectors, small_collection: Collection, store: Store
) -> None:
    whole = embed(token_vectors, small_collection, "document", store).vectors
    expected = token_vectors.embed(small_collection.document_texts(), "document")
    np.testing.assert_array_equal(whole.rows, expected.rows)
    np.testing.assert_array_equal(whole.counts, expected.counts)
    part = embed(token_vectors, small_collection, "document", store, rows=[5, 2]).vectors
    np.testing.assert_allclose(part.rows, expected.take([5, 2]).rows, atol=1e-6)
    (folder,) = {path.parent for path in store.dir.glob("embeddings/*/starts.npy")} - {
        path.parent for path in store.dir.glob("embeddings/*/starts.npy") if len(np.load(path)) == 3
    }
    assert sorted(path.name for path in folder.iterdir()) == ["key.json", "matrix.npy", "starts.npy"]


def test_what_was_encoded_before_a_crash_is_not_encoded_again(
    token_vectors: TokenVectors, small_collection: Collection, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, computed = token_vectors.forward, []

    def counted(*arguments: Tensor) -> Tensor:
        if len(computed) == 3:
            raise KeyboardInterrupt
        computed.append(len(arguments[0]))
        return forward(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(token_vectors, "forward", counted)
        with pytest.raises(KeyboardInterrupt):
            embed(token_vectors, small_collection, "document", store)
    again: list[int] = []
    monkeypatch.setattr(
        token_vectors, "forward", lambda *arguments: (again.append(len(arguments[0])), forward(*arguments))[1]
    )
    vectors = embed(token_vectors, small_collection, "document", store).vectors
    assert sum(computed) + sum(again) == len(TEXTS)
    np.testing.assert_array_equal(vectors.rows, token_vectors.embed(small_collection.document_texts(), "document").rows)


def test_a_text_without_its_vectors_is_named(
    token_vectors: TokenVectors, small_collection: Collection, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = np.array([row for row in range(len(TEXTS)) if row not in (4, 7)])
    monkeypatch.setattr(multiprocess_encoding, "plan_batches", lambda lengths, budget: [some])
    with pytest.raises(UserError, match=r"2 of 12 texts have no vector, .* row 4\)"):
        embed(token_vectors, small_collection, "document", store)


def test_encode_is_for_one_vector_each(token_vectors: TokenVectors, make_encoder: Callable[..., Encoder]) -> None:
    with pytest.raises(UserError, match="tiny gives several vectors for each text: call embed"):
        token_vectors.encode(TEXTS, "query")
    plain = make_encoder()
    assert plain.vector_counts(plain.tokenize(TEXTS, "query")) is None
    vectors = plain.embed(TEXTS, "query")
    assert vectors.single
    np.testing.assert_array_equal(vectors.rows, plain.encode(TEXTS, "query"))
