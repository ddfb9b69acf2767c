"""Folders of sentence-transformers are read as they are meant, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from embfit.errors import UserError
from embfit.model import BiEncoder, Encoder, Pretrained, save_encoder
from embfit.model.folder import read_settings
from embfit.model.projection import Projection, UnitLength
from tests.conftest import TEXTS

DENSE = {"in_features": 32, "out_features": 8, "activation_function": "torch.nn.Tanh"}


@pytest.fixture
def folder(tiny_encoder: Encoder, tmp_path: Path) -> Path:
    """A model folder of the tiny encoder, with a dense layer after its pooling."""
    torch.manual_seed(1)
    encoder = BiEncoder(tiny_encoder.backbone, tiny_encoder.tokenizer, tiny_encoder.settings, [Projection(DENSE)])
    save_encoder(encoder, tmp_path / "model")
    return tmp_path / "model"


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def theirs(folder: Path, texts: list[str]) -> np.ndarray:
    """What sentence-transformers makes of texts, in unit length."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    vectors: np.ndarray = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(
        texts, normalize_embeddings=True
    )
    return vectors


def load(folder: Path) -> Encoder:
    return Pretrained(str(folder), precision="fp32").load("cpu")


def test_its_vectors_are_as_wide_as_its_last_layer(folder: Path) -> None:
    assert Pretrained(str(folder)).width() == load(folder).width == 8


def test_unit_length_in_front_of_a_dense_layer(folder: Path, tmp_path: Path) -> None:
    straight = load(folder).encode(TEXTS, "document")
    rewrite(folder / "modules.json", lambda modules: [*modules[:2], modules[3], modules[2]])
    encoder = load(folder)
    assert [type(layer) for layer in encoder.head] == [UnitLength, Projection]
    vectors = encoder.encode(TEXTS, "document")
    assert np.abs(vectors - straight).max() > 1e-3
    np.testing.assert_allclose(vectors, theirs(folder, TEXTS), atol=1e-5)
    save_encoder(encoder, tmp_path / "again")
    np.testing.assert_array_equal(load(tmp_path / "again").encode(TEXTS, "document"), vectors)
    np.testing.assert_allclose(theirs(tmp_path / "again", TEXTS), vectors, atol=1e-5)


@pytest.mark.parametrize("order", [[0, 2, 1, 3], [1, 0, 3], [0, 3], [0, 1, 1, 3], []])
def test_an_order_that_embfit_does_not_compute_is_refused(folder: Path, order: list[int]) -> None:
    rewrite(folder / "modules.json", lambda modules: [modules[place] for place in order])
    with pytest.raises(UserError, match=r"modules\.json: the order .* is not supported; Transformer comes first"):
        read_settings(folder)


@pytest.mark.parametrize("kind", ["pylate.models.Dense.Dense", "custom_st.Transformer"])
def test_a_module_of_another_library_is_refused(folder: Path, kind: str) -> None:
    rewrite(folder / "modules.json", lambda modules: [{**modules[0], "type": kind}, *modules[1:]])
    with pytest.raises(UserError, match=rf"modules\.json: the module '{kind}' is not supported"):
        read_settings(folder)


def test_late_interaction_is_refused(folder: Path) -> None:
    rewrite(
        folder / "config_sentence_transformers.json",
        lambda said: {**said, "similarity_fn_name": "MaxSim", "query_prefix": "[Q] "},
    )
    with pytest.raises(UserError, match=r"a late-interaction model, .* choose model=colbert model.path="):
        Pretrained(str(folder)).load("cpu")


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("sentence_bert_config.json", "query_length", 32),
        ("sentence_bert_config.json", "transformer_task", "text-generation"),
        ("config_sentence_transformers.json", "query_style", "formal"),
        ("1_Pooling/config.json", "pooling_heads", 4),
        ("2_Dense/config.json", "rank", 8),
        ("2_Dense/config.json", "module_input_name", "token_embeddings"),
        ("3_Normalize/config.json", "module_input_name", "token_embeddings"),
    ],
)
def test_a_setting_that_embfit_does_not_know_is_refused(folder: Path, file: str, key: str, value: object) -> None:
    (folder / file).write_text(json.dumps({key: value})) if not (folder / file).is_file() else None
    rewrite(folder / file, lambda said: {**said, key: value})
    with pytest.raises(UserError, match=rf"{file}: embfit does not know what {key}: "):
        load(folder)


def test_a_default_prompt_is_put_in_front_of_texts_that_have_none_of_their_own(folder: Path) -> None:
    rewrite(
        folder / "config_sentence_transformers.json",
        lambda said: {**said, "prompts": {"document": "a ", "search": "the "}, "default_prompt_name": "search"},
    )
    said = read_settings(folder)
    assert (said.query_prompt, said.document_prompt) == ("the ", "a ")


def test_early_releases_named_the_settings_of_text_after_the_backbone(folder: Path) -> None:
    (folder / "sentence_bert_config.json").rename(folder / "sentence_roberta_config.json")
    rewrite(folder / "sentence_roberta_config.json", lambda said: {**said, "max_seq_length": 7})
    assert read_settings(folder).max_length == 7


def test_small_letters_are_the_folders_wish(folder: Path, tmp_path: Path) -> None:
    """The tokenizer keeps capitals, and only `do_lower_case` says that the model does not know them."""
    rewrite(folder / "tokenizer.json", lambda rules: {**rules, "normalizer": None})
    capitals = [text.upper() for text in TEXTS]
    as_it_is = load(folder)
    assert np.abs(as_it_is.encode(capitals, "query") - as_it_is.encode(TEXTS, "query")).max() > 1e-3
    rewrite(folder / "sentence_bert_config.json", lambda said: {**said, "do_lower_case": True})
    encoder = load(folder)
    expected = encoder.encode(TEXTS, "query")
    np.testing.assert_array_equal(encoder.encode(capitals, "query"), expected)
    np.testing.assert_allclose(theirs(folder, capitals), expected, atol=1e-5)
    save_encoder(encoder, tmp_path / "again")
    np.testing.assert_array_equal(load(tmp_path / "again").encode(capitals, "query"), expected)
    np.testing.assert_allclose(theirs(tmp_path / "again", capitals), expected, atol=1e-5)


def test_a_tokenizer_without_a_padding_token_gets_one(tiny_encoder: Encoder, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_encoder.tokenizer.backend_tokenizer, unk_token="[UNK]", eos_token="[SEP]"
    )
    save_encoder(BiEncoder(tiny_encoder.backbone, tokenizer, tiny_encoder.settings), tmp_path / "bare")
    encoder = load(tmp_path / "bare")
    assert encoder.tokenizer.pad_token == "[SEP]"
    save_encoder(encoder, tmp_path / "model")
    vectors = encoder.encode(TEXTS, "query")
    np.testing.assert_allclose(vectors, tiny_encoder.encode(TEXTS, "query"), atol=1e-6)
    np.testing.assert_allclose(theirs(tmp_path / "model", TEXTS), vectors, atol=1e-5)


def test_the_tokenizers_class_has_a_name_that_transformers_4_knows(folder: Path) -> None:
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "pytorch_model.bin: cannot be read"),
        (b"not a file of PyTorch's", "pytorch_model.bin: cannot be read"),
        ({"linear.weight": torch.zeros(8, 31)}, "pytorch_model.bin: the weights do not fit its config.json"),
    ],
)
def test_a_dense_layer_that_is_damaged(folder: Path, content: bytes | dict[str, torch.Tensor], said: str) -> None:
    (folder / "2_Dense" / "model.safetensors").unlink()
    path = folder / "2_Dense" / "pytorch_model.bin"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=said) as error:
        Pretrained(str(folder)).load("cpu")
    assert "\n" not in str(error.value)
