"""What of a model is trained: frozen parts, and adapters."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import nn

from embfit.errors import UserError
from embfit.model import Encoder, Pretrained, save_encoder
from embfit.model.layers import layer_stack
from embfit.model.lora import has_adapter
from embfit.records import DevQuality
from embfit.training import Fit
from tests.conftest import TEXTS, steady

STACKS = {
    "bge-m3": ("embeddings", "encoder.layer"),
    "gte-modernbert": ("embeddings", "layers"),
    "nomic-embed": ("embeddings", "layers"),
    "qwen3-embedding-0.6b": ("embed_tokens", "layers"),
}


def trained(encoder: Encoder) -> set[str]:
    return {name.removeprefix("backbone.") for name, weight in encoder.named_parameters() if weight.requires_grad}


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name.removeprefix("backbone."): weight.clone() for name, weight in encoder.state_dict().items()}


@pytest.mark.parametrize("choice", STACKS)
def test_frozen_layers_stay_as_they_are_and_cost_no_backward_pass(
    choice: str, chosen: Callable[..., Pretrained], train: Callable[..., Fit]
) -> None:
    embeddings, stack = STACKS[choice]
    model = chosen(choice, "model.freeze_layers=1")
    encoder = model.load("cpu")
    frozen = (f"{embeddings}.", f"{stack}.0.")
    with model.trainable(encoder):
        assert {name for name in trained(encoder) if name.startswith(frozen)} == set()
        assert any(name.startswith(f"{stack}.1.") for name in trained(encoder))
        needed: dict[int, bool] = {}
        for number, layer in enumerate(layer_stack(encoder.backbone)[1]):
            layer.register_forward_hook(
                lambda layer, given, out, number=number: needed.update({number: given[0].requires_grad})
            )
        tokens = encoder.tokenize(TEXTS, "document")
        encoder(*tokens.padded(np.arange(len(TEXTS)), encoder.pad_id)).sum().backward()
        assert needed == {0: False, 1: False}  # autograd begins with the upper layer's weights
        encoder.zero_grad()
    before = weights(encoder)
    train(model, encoder)
    moved = {name for name, weight in weights(encoder).items() if not torch.equal(weight, before[name])}
    assert {name for name in moved if name.startswith(frozen)} == set()
    assert any(name.startswith(f"{stack}.1.") for name in moved)


def test_frozen_embeddings_leave_all_layers_to_train(chosen: Callable[..., Pretrained]) -> None:
    model = chosen("bge-m3", "model.freeze_embeddings=true")
    encoder = model.load("cpu")
    everything = trained(encoder)
    with model.trainable(encoder):
        assert everything - trained(encoder) == {name for name in everything if name.startswith("embeddings.")}
    assert trained(encoder) == everything


def test_how_much_is_trained_is_told(chosen: Callable[..., Pretrained], caplog: pytest.LogCaptureFixture) -> None:
    model = chosen("gte-modernbert", "model.lora.rank=2", "model.lora.targets=[Wqkv]")
    encoder = model.load("cpu")
    total = sum(weight.numel() for weight in encoder.parameters())
    adapter = 2 * 2 * (32 + 96)  # two layers; rank 2; 32 in and 96 out
    with caplog.at_level(logging.INFO, "embfit"), model.trainable(encoder):
        pass
    assert caplog.messages == [f"training {adapter / 1e6:.3g} million of {(total + adapter) / 1e6:.3g} million weights"]


def test_a_layer_must_be_left(chosen: Callable[..., Pretrained]) -> None:
    model = chosen("bge-m3", "model.freeze_layers=2")
    with pytest.raises(UserError, match="freeze_layers=2 leaves none of the 2 layers to train; 1 at most"):
        model.trainable(model.load("cpu")).__enter__()


def test_a_model_without_a_stack(tiny_encoder: Encoder) -> None:
    tiny_encoder.backbone.encoder.layer = nn.Sequential(*tiny_encoder.backbone.encoder.layer)
    with pytest.raises(UserError, match="BertModel has no list of 2 layers"):
        layer_stack(tiny_encoder.backbone)


def test_an_adapter_starts_at_the_base_model_the_same_each_time(chosen: Callable[..., Pretrained]) -> None:
    model = chosen("e5-mistral-7b", "model.lora.rank=4", "model.lora.targets=[q_proj,v_proj]", "model.lora.seed=3")
    first, second = model.load("cpu"), model.load("cpu")
    base = first.encode(TEXTS, "query")
    with model.trainable(first), model.trainable(second):
        torch.rand(5)
        np.testing.assert_array_equal(first.encode(TEXTS, "query"), base)
        assert first.fingerprint("document") == second.fingerprint("document")
        assert trained(first) == {
            f"layers.{layer}.self_attn.{name}_proj.lora_{side}.default.weight"
            for layer in (0, 1)
            for name in "qv"
            for side in "AB"
        }
        found = dict(first.backbone.named_parameters())
        assert {found[name].dtype for name in trained(first)} == {torch.float32}
        assert found["layers.0.self_attn.q_proj.base_layer.weight"].dtype == torch.bfloat16
        assert found["layers.0.self_attn.q_proj.lora_A.default.weight"].shape == (4, 32)


def test_an_adapter_leaves_frozen_layers_out(chosen: Callable[..., Pretrained]) -> None:
    model = chosen("bge-m3", "model.lora.rank=2", "model.freeze_layers=1")
    encoder = model.load("cpu")
    with model.trainable(encoder):
        assert {name.split(".")[2] for name in trained(encoder)} == {"1"}
        assert len(trained(encoder)) == 2 * 6  # query, key, value, and three dense ones


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("merged", [True, False])
def test_an_adapter_is_saved_merged_or_alone(
    merged: bool, dtype: str, chosen: Callable[..., Pretrained], train: Callable[..., Fit], tmp_path: Path
) -> None:
    model = chosen("qwen3-embedding-0.6b", "model.lora.rank=4", f"model.lora.merged={merged}", f"model.dtype={dtype}")
    encoder = model.load("cpu")
    base = encoder.encode(TEXTS, "query")
    train(model, encoder)
    tuned = encoder.encode(TEXTS, "query")
    assert np.abs(tuned - base).max() > 1e-3
    folder = tmp_path / "tuned"
    save_encoder(encoder, folder)
    assert (folder / "config.json").is_file() == (folder / "model.safetensors").is_file() == merged
    assert (folder / "adapter_config.json").is_file() == (not merged)

    again = Pretrained(str(folder), dtype=dtype, precision="fp32").load("cpu")
    assert has_adapter(again.backbone) == (not merged)
    assert again.fingerprint("document") == encoder.fingerprint("document")
    np.testing.assert_array_equal(again.encode(TEXTS, "query"), tuned)
    if not merged:
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == model.path
        assert all(weight.dtype == torch.float32 for weight in load_file(folder / "adapter_model.safetensors").values())
    if dtype == "float32":
        theirs = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
        np.testing.assert_allclose(tuned, theirs.encode(TEXTS, prompt_name="query"), atol=1e-5)


def test_the_fingerprint_sees_how_loud_an_adapter_is(
    chosen: Callable[..., Pretrained], train: Callable[..., Fit], tmp_path: Path
) -> None:
    model = chosen("qwen3-embedding-0.6b", "model.lora.rank=4", "model.lora.merged=false")
    encoder = model.load("cpu")
    train(model, encoder)
    save_encoder(encoder, tmp_path / "tuned")
    path = tmp_path / "tuned" / "adapter_config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"lora_alpha": 2 * said["lora_alpha"]}))
    louder = Pretrained(str(tmp_path / "tuned"), precision="fp32").load("cpu")
    assert np.abs(louder.encode(TEXTS, "query") - encoder.encode(TEXTS, "query")).max() > 1e-3
    assert louder.fingerprint("document") != encoder.fingerprint("document")


@pytest.mark.parametrize("choice", [*STACKS, "e5-mistral-7b"])
def test_every_family_takes_an_adapter_and_has_it_back(
    choice: str, chosen: Callable[..., Pretrained], train: Callable[..., Fit], tmp_path: Path
) -> None:
    encoder = (model := chosen(choice, "model.lora.rank=4", "model.lora.merged=false")).load("cpu")
    base = encoder.encode(TEXTS, "query")
    train(model, encoder)
    save_encoder(encoder, tmp_path / "tuned")
    again = Pretrained(str(tmp_path / "tuned"), dtype=model.dtype, precision="fp32").load("cpu")
    tuned = again.encode(TEXTS, "query")
    assert np.abs(tuned - base).max() > 1e-3
    np.testing.assert_array_equal(tuned, encoder.encode(TEXTS, "query"))
    assert has_adapter(again.backbone)


def test_peft_loads_an_adapter_that_was_saved_alone(
    chosen: Callable[..., Pretrained], train: Callable[..., Fit], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    model = chosen("gte-modernbert", "model.lora.rank=4", "model.lora.merged=false")
    encoder = model.load("cpu")
    train(model, encoder)
    save_encoder(encoder, tmp_path / "tuned")
    base = chosen("gte-modernbert").load("cpu")
    theirs = peft.PeftModel.from_pretrained(base.backbone, str(tmp_path / "tuned")).eval()
    ids = torch.tensor([[1, 7, 8, 9, 2]])
    with torch.no_grad():
        expected = encoder.backbone(input_ids=ids).last_hidden_state
        torch.testing.assert_close(theirs(input_ids=ids).last_hidden_state, expected, atol=1e-6, rtol=1e-5)


def test_training_goes_on_from_an_adapter_that_was_saved_alone(
    chosen: Callable[..., Pretrained], train: Callable[..., Fit], tmp_path: Path
) -> None:
    model = chosen("bge-m3", "model.lora.rank=4", "model.lora.merged=false")
    encoder = model.load("cpu")
    train(model, encoder)
    save_encoder(encoder, tmp_path / "tuned")
    further = Pretrained(str(tmp_path / "tuned"), precision="fp32")
    loaded = further.load("cpu")
    vectors = loaded.encode(TEXTS, "query")
    with further.trainable(loaded):
        assert not has_adapter(loaded.backbone)
        np.testing.assert_allclose(loaded.encode(TEXTS, "query"), vectors, atol=1e-5)
        assert "encoder.layer.0.attention.self.query.weight" in trained(loaded)
    second = chosen("bge-m3", f"model.path={tmp_path / 'tuned'}", "model.lora.rank=4", "model.lora.merged=false")
    with pytest.raises(UserError, match=r"is an adapter itself.*set model\.lora\.merged=true"):
        second.trainable(second.load("cpu")).__enter__()


def test_the_best_weights_of_an_adapter_come_back(chosen: Callable[..., Pretrained], train: Callable[..., Fit]) -> None:
    model = chosen("qwen3-embedding-0.6b", "model.lora.rank=4", "model.lora.merged=false")
    encoder = model.load("cpu")
    seen: list[np.ndarray] = []

    def validate(encoder: Encoder) -> DevQuality:
        seen.append(encoder.encode(TEXTS, "query"))
        return steady([0.1, 0.9, 0.5][len(seen) - 1])

    fit = train(model, encoder, validate=validate, steps=2, validations_per_epoch=2)
    assert fit.kept_step == 1
    np.testing.assert_array_equal(encoder.encode(TEXTS, "query"), seen[1])


class KilledError(Exception):
    """Stands for the end of the process."""


class Kill(pl.Callback):
    """Ends the process after two steps."""

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: object) -> None:
        if trainer.global_step == 2:
            raise KilledError


def test_a_killed_training_of_an_adapter_goes_on_to_the_same_end(
    chosen: Callable[..., Pretrained], train: Callable[..., Fit]
) -> None:
    model = chosen("qwen3-embedding-0.6b", "model.lora.rank=4", "model.lora.dropout=0.2")
    vectors = []
    for kill in (False, True):
        settings = {"folder": f"killed-{kill}", "steps": 4, "dropout": True, "checkpoint_every": 1}
        encoder = model.load("cpu")
        if kill:
            with pytest.raises(KilledError):
                train(model, encoder, callbacks=[Kill()], **settings)
            encoder = model.load("cpu")
        assert train(model, encoder, **settings).steps == 4
        vectors.append(encoder.encode(TEXTS, "query"))
    np.testing.assert_array_equal(*vectors)


def test_what_other_ranks_get_is_the_same_model(chosen: Callable[..., Pretrained]) -> None:
    model = chosen("e5-mistral-7b", "model.compile=true")
    encoder = model.load("cpu")
    file = io.BytesIO()
    with model.trainable(encoder):
        torch.save(encoder, file)
        file.seek(0)
        theirs = torch.load(file, weights_only=False)
        assert trained(theirs) == trained(encoder)
        assert theirs.fingerprint("document") == encoder.fingerprint("document")
        assert theirs.settings.compile
        np.testing.assert_array_equal(theirs.encode(TEXTS, "query"), encoder.encode(TEXTS, "query"))


def test_a_base_that_is_gone(chosen: Callable[..., Pretrained], train: Callable[..., Fit], tmp_path: Path) -> None:
    model = chosen("bge-m3", "model.lora.rank=4", "model.lora.merged=false")
    encoder = model.load("cpu")
    train(model, encoder)
    save_encoder(encoder, tmp_path / "tuned")
    path = tmp_path / "tuned" / "adapter_config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": "./gone"}))
    with pytest.raises(UserError, match=r"the base that its adapter_config\.json names cannot be found") as error:
        Pretrained(str(tmp_path / "tuned")).load("cpu")
    assert "\n" not in str(error.value)
    path.write_text("{\n'r': 4}")
    with pytest.raises(UserError, match=r"adapter_config\.json:2: not valid JSON"):
        Pretrained(str(tmp_path / "tuned")).load("cpu")


def test_modules_that_are_not_there(chosen: Callable[..., Pretrained]) -> None:
    model = chosen("bge-m3", "model.lora.rank=4", "model.lora.targets=[q_proj]")
    with pytest.raises(UserError, match="have no linear module 'q_proj'; they have dense, key, query, value"):
        model.trainable(model.load("cpu")).__enter__()


def test_without_peft(chosen: Callable[..., Pretrained], monkeypatch: pytest.MonkeyPatch) -> None:
    model = chosen("bge-m3", "model.lora.rank=4")
    encoder = model.load("cpu")
    monkeypatch.setattr("embfit.model.lora.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"adapters need peft, .*pip install 'embfit\[lora\]'"):
        model.trainable(encoder).__enter__()
