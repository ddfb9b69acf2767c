from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from embfit.model import BiEncoder, Encoder, Kind, Pretrained, embed, save_encoder, tokenized
from embfit.model.projection import Projection
from embfit.records import Collection
from embfit.store import Store
from tests.conftest import TEXTS


def one_by_one(encoder: Encoder, texts: list[str]) -> np.ndarray:
    """The textbook way: each text alone, no padding, no sorting."""
    vectors = []
    for text in texts:
        batch = encoder.tokenizer(text, return_tensors="pt", truncation=True, max_length=encoder.max_length)
        with torch.no_grad():
            hidden = encoder.backbone(**batch).last_hidden_state[0].mean(dim=0)
        vectors.append((hidden / hidden.norm()).numpy())
    return np.stack(vectors)


def test_encode_equals_one_text_at_a_time(tiny_encoder: Encoder) -> None:
    np.testing.assert_allclose(tiny_encoder.encode(TEXTS, "document"), one_by_one(tiny_encoder, TEXTS), atol=1e-6)


def test_vectors_have_unit_length_only_if_asked(make_encoder: Callable[..., Encoder]) -> None:
    unit = make_encoder().encode(TEXTS, "document")
    raw = make_encoder(normalize=False).encode(TEXTS, "document")
    assert np.linalg.norm(unit, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-6)
    assert np.linalg.norm(raw, axis=1).std() > 1e-4
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), unit, atol=1e-6)


def test_prompts_go_in_front_of_their_own_side(make_encoder: Callable[..., Encoder]) -> None:
    prompted, plain = make_encoder(query_prompt="the "), make_encoder()
    np.testing.assert_array_equal(prompted.encode(["heart"], "query"), plain.encode(["the heart"], "query"))
    np.testing.assert_array_equal(prompted.encode(["heart"], "document"), plain.encode(["heart"], "document"))


def test_bf16_is_close_and_pooled_in_fp32(make_encoder: Callable[..., Encoder]) -> None:
    exact = make_encoder(precision="fp32").encode(TEXTS, "document")
    quick = make_encoder(precision="bf16").encode(TEXTS, "document")
    assert quick.dtype == np.float32
    assert 0.999 < (exact * quick).sum(axis=1).min() < 1


def test_no_texts(tiny_encoder: Encoder) -> None:
    assert tiny_encoder.encode([], "query").shape == (0, 32)


def test_encoding_leaves_dropout_as_it_was(make_encoder: Callable[..., Encoder]) -> None:
    encoder = make_encoder(dropout=0.5).train()
    first, second = encoder.encode(TEXTS, "document"), encoder.encode(TEXTS, "document")
    np.testing.assert_array_equal(first, second)
    assert encoder.training


@pytest.mark.parametrize(
    ("change", "sides"),
    [
        ({"pooling": "cls"}, {"query", "document"}),
        ({"normalize": False}, {"query", "document"}),
        ({"max_length": 16}, {"query", "document"}),
        ({"query_prompt": "query: "}, {"query"}),
        ({"document_prompt": "passage: "}, {"document"}),
        ({"precision": "bf16"}, {"query", "document"}),
    ],
)
def test_the_fingerprint_sees_each_setting_of_its_side(
    make_encoder: Callable[..., Encoder], change: dict[str, object], sides: set[Kind]
) -> None:
    changed, plain = make_encoder(**change), make_encoder()
    assert {side for side in ("query", "document") if changed.fingerprint(side) != plain.fingerprint(side)} == sides


def test_the_fingerprint_sees_one_changed_weight(make_encoder: Callable[..., Encoder]) -> None:
    encoder = make_encoder()
    before = encoder.fingerprint("document")
    with torch.no_grad():
        encoder.backbone.embeddings.LayerNorm.bias[0] += 1e-6
    assert encoder.fingerprint("document") != before
    assert before == make_encoder().fingerprint("document")


def test_the_fingerprint_sees_what_is_done_with_equal_weights(tiny_encoder: Encoder, tmp_path: Path) -> None:
    def saved(**changes: object) -> Encoder:
        save_encoder(tiny_encoder, tmp_path / "model")
        path = tmp_path / "model" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return Pretrained(str(tmp_path / "model"), precision="fp32").load("cpu")

    assert saved().fingerprint("document") == tiny_encoder.fingerprint("document")  # wherever it lies
    other = saved(hidden_act="relu")
    assert np.abs(other.encode(TEXTS, "query") - tiny_encoder.encode(TEXTS, "query")).max() > 1e-3
    assert other.fingerprint("document") != tiny_encoder.fingerprint("document")


def test_the_fingerprint_sees_the_activation_of_a_projection(tiny_encoder: Encoder) -> None:
    def projected(activation: str) -> Encoder:
        torch.manual_seed(1)
        dense = Projection({"in_features": 32, "out_features": 8, "activation_function": activation})
        return BiEncoder(tiny_encoder.backbone, tiny_encoder.tokenizer, tiny_encoder.settings, [dense])

    assert projected("torch.nn.Tanh").fingerprint("document") == projected("torch.nn.Tanh").fingerprint("document")
    assert projected("torch.nn.Tanh").fingerprint("document") != projected("torch.nn.Identity").fingerprint("document")


def test_the_fingerprint_sees_which_end_of_a_text_is_cut_off(tmp_path: Path, tiny_encoder: Encoder) -> None:
    save_encoder(tiny_encoder, tmp_path / "model")
    other = Pretrained(str(tmp_path / "model"), precision="fp32").load("cpu")
    other.tokenizer.truncation_side = "left"
    assert other.fingerprint("document") != tiny_encoder.fingerprint("document")


def test_the_fingerprint_reads_single_numbers_too(tiny_encoder: Encoder) -> None:
    tiny_encoder.backbone.register_buffer("scale", torch.tensor(1.0))
    before = tiny_encoder.fingerprint("document")
    tiny_encoder.backbone.scale += 1
    assert tiny_encoder.fingerprint("document") != before


def test_the_tokenizers_state_is_not_part_of_the_fingerprint(tiny_encoder: Encoder) -> None:
    before = tiny_encoder.fingerprint("document")
    tiny_encoder.tokenizer(TEXTS, truncation=True, max_length=5, padding=True)
    assert tiny_encoder.fingerprint("document") == before


def test_embed_is_kept_and_follows_the_weights(
    tiny_encoder: Encoder, small_collection: Collection, store: Store
) -> None:
    first = embed(tiny_encoder, small_collection, "document", store)
    np.testing.assert_allclose(first.vectors.rows, tiny_encoder.encode(TEXTS, "document"), atol=1e-6)
    later = Store(store.dir)
    assert embed(tiny_encoder, small_collection, "document", later).fingerprint == first.fingerprint
    assert later.reused == ["embeddings"]
    with torch.no_grad():
        tiny_encoder.backbone.embeddings.LayerNorm.bias += 0.1
    second = embed(tiny_encoder, small_collection, "document", store)
    assert second.fingerprint != first.fingerprint
    assert np.abs(second.vectors.rows - first.vectors.rows).max() > 1e-4
    assert store.built.count("tokens") == 1


def test_embed_some_rows(tiny_encoder: Encoder, small_collection: Collection, store: Store) -> None:
    whole = embed(tiny_encoder, small_collection, "query", store)
    part = embed(tiny_encoder, small_collection, "query", store, rows=[5, 2])
    np.testing.assert_allclose(part.vectors.rows, whole.vectors.rows[[5, 2]], atol=1e-6)
    other = embed(tiny_encoder, small_collection, "query", store, rows=[5, 3])
    np.testing.assert_allclose(other.vectors.rows, whole.vectors.rows[[5, 3]], atol=1e-6)


@pytest.mark.parametrize("change", [{"query_prompt": "the heart "}, {"max_length": 4}], ids=["prompt", "length"])
def test_tokens_are_of_the_prompt_and_length_asked_for(
    make_encoder: Callable[..., Encoder], small_collection: Collection, store: Store, change: dict[str, object]
) -> None:
    plain = tokenized(make_encoder(), small_collection, "query", store)
    other = make_encoder(**change)
    found = tokenized(other, small_collection, "query", store)
    assert found.ids.tolist() == other.tokenize(small_collection.query_texts(), "query").ids.tolist()
    assert len(found.ids) != len(plain.ids)


def test_tokens_are_of_the_side_asked_for(tiny_encoder: Encoder, small_collection: Collection, store: Store) -> None:
    assert len(tokenized(tiny_encoder, small_collection, "query", store)) == 12
    lengths = tokenized(tiny_encoder, small_collection, "document", store).lengths
    assert lengths.tolist() == [len(tiny_encoder.tokenizer(text)["input_ids"]) for text in TEXTS]
