"""Encoders by ONNX Runtime and OpenVINO give PyTorch's vectors, under fingerprints of their own."""

import gc
import json
import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertModel, PreTrainedTokenizerFast

from embfit.errors import ConfigError, UserError
from embfit.model import Encoder, LateInteraction, Pretrained, embed, save_encoder
from embfit.model.back_ends import choice, conversion
from embfit.model.back_ends.choice import choose_back_end, distance_to_torch, graph_precision
from embfit.model.back_ends.conversion import convert
from embfit.model.back_ends.graph import HIDDEN, Graph
from embfit.model.projection import Projection
from embfit.model.trainable import check_trainable
from embfit.records import Collection
from embfit.store import Store
from tests.conftest import TEXTS, new_encoder, new_late_encoder

BACK_ENDS = [
    pytest.param("onnx", marks=pytest.mark.skipif(not choice.installed("onnx"), reason="onnxruntime is not installed")),
    pytest.param(
        "openvino", marks=pytest.mark.skipif(not choice.installed("openvino"), reason="openvino is not installed")
    ),
]
needs_both = pytest.mark.skipif(
    not (choice.installed("onnx") and choice.installed("openvino")), reason="a back end is not installed"
)


def with_prompts(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    """A bi-encoder with everything that stands around a backbone."""
    made = new_encoder(tokenizer, 0.1, pooling="cls", query_prompt="the query: ", normalize=True)  # with dropout
    torch.manual_seed(1)
    made.head = nn.ModuleList([Projection({"in_features": 32, "out_features": 24, "activation_function": "Tanh"})])
    made._width = 24
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("make", [new_encoder, with_prompts, new_late_encoder])
def test_vectors_are_pytorchs(
    back_end: choice.GraphBackEnd, make: Callable[..., Encoder], tokenizer: PreTrainedTokenizerFast, store: Store
) -> None:
    encoder = make(tokenizer)
    texts = [*TEXTS, "", "the heart " * 40]
    for kind in ("query", "document"):
        encoder.graph = None
        expected, fingerprint = encoder.embed(texts, kind), encoder.fingerprint(kind)
        choose_back_end(encoder, back_end, "fp32", store)
        found = encoder.embed(texts, kind)
        assert np.abs(found.rows - expected.rows).max() < 1e-5
        assert np.array_equal(found.counts, expected.counts)
        assert encoder.fingerprint(kind) != fingerprint
        assert (encoder.back_end, encoder.computes_in) == (back_end, "fp32")
        assert not encoder.backbone.training


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_texts_as_long_as_there_are_positions(
    back_end: choice.GraphBackEnd, tokenizer: PreTrainedTokenizerFast
) -> None:
    encoder = new_encoder(tokenizer, max_length=30)
    config = encoder.backbone.config
    config.max_position_embeddings = 30  # no multiple of the lengths that graphs pad to
    encoder.backbone = BertModel(config).eval()
    expected = encoder.encode(["the heart " * 40], "document")
    choose_back_end(encoder, back_end, "fp32", Store(enabled=False))
    assert np.abs(encoder.encode(["the heart " * 40], "document") - expected).max() < 1e-5


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_a_text_does_not_depend_on_its_batch(
    back_end: choice.GraphBackEnd, tokenizer: PreTrainedTokenizerFast, store: Store
) -> None:
    encoder = new_encoder(tokenizer)
    choose_back_end(encoder, back_end, "auto", store)
    together = encoder.encode(TEXTS, "document")
    alone = np.concatenate([encoder.encode([text], "document") for text in TEXTS])
    assert np.abs(together - alone).max() < (1e-6 if encoder.computes_in == "fp32" else 2e-2)


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_weights_are_converted_once_and_changed_ones_anew(
    back_end: choice.GraphBackEnd, tokenizer: PreTrainedTokenizerFast, store: Store
) -> None:
    encoder, other = new_encoder(tokenizer), new_encoder(tokenizer, query_prompt="q ")
    choose_back_end(encoder, back_end, "fp32", store)
    choose_back_end(other, back_end, "fp32", store)
    assert encoder.graph is not None
    assert other.graph is not None
    assert encoder.graph.path == other.graph.path  # a prompt is no part of the backbone
    files = {"onnx": {"model.onnx"}, "openvino": {"openvino_model.xml", "openvino_model.bin"}}[back_end]
    assert {file.name for file in encoder.graph.path.parent.iterdir()} == files | {"key.json"}
    with torch.no_grad():
        next(other.backbone.parameters()).mul_(1.5)
    before = encoder.encode(TEXTS, "document")
    choose_back_end(other, back_end, "fp32", store)
    assert encoder.graph.path != other.graph.path
    assert np.abs(other.encode(TEXTS, "document") - before).max() > 1e-3


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_a_graph_is_opened_anew_in_another_process(
    back_end: choice.GraphBackEnd, tokenizer: PreTrainedTokenizerFast, store: Store
) -> None:
    encoder = new_encoder(tokenizer)
    choose_back_end(encoder, back_end, "fp32", store)
    expected = encoder.encode(TEXTS, "document")
    again: Encoder = pickle.loads(pickle.dumps(encoder))
    assert np.array_equal(again.encode(TEXTS, "document"), expected)


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_embeddings_of_back_ends_are_kept_apart(
    back_end: choice.GraphBackEnd, tokenizer: PreTrainedTokenizerFast, small_collection: Collection, tmp_path
) -> None:
    store, encoder = Store(tmp_path), new_encoder(tokenizer)
    expected = embed(encoder, small_collection, "document", store)
    choose_back_end(encoder, back_end, "fp32", store)
    found = embed(encoder, small_collection, "document", store)
    assert found.fingerprint != expected.fingerprint
    assert np.abs(found.vectors.rows - expected.vectors.rows).max() < 1e-5
    assert store.built.count("embeddings") == 2


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("kind", [Pretrained, LateInteraction])
def test_a_choice_loads_by_its_back_end(back_end, kind, tokenizer, tmp_path, store) -> None:
    made = new_encoder(tokenizer) if kind is Pretrained else new_late_encoder(tokenizer)
    save_encoder(made, tmp_path / "model")
    asked = kind(str(tmp_path / "model"), backend=back_end, precision="fp32")
    encoder = asked.load("cpu", store=store)
    plain = replace(asked, backend="torch").load("cpu")
    assert encoder.back_end == back_end
    assert np.abs(encoder.embed(TEXTS, "query").rows - plain.embed(TEXTS, "query").rows).max() < 1e-5
    with pytest.raises(UserError, match=f"computes by {back_end}, which cannot be trained; set model.backend=torch"):
        asked.check(encoder)
    check_trainable(plain, asked._trained_parts(plain))


@needs_both
def test_auto_takes_the_fastest_and_remembers(
    tokenizer: PreTrainedTokenizerFast, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"torch": [3.0, 20.0], "openvino": [1.0, 50.0], "onnx": [2.0, 40.0]}  # products 60, 50 and 80
    asked = []

    def timed(encoder: Encoder, graph: Graph | None) -> list[float]:
        asked.append("torch" if graph is None else graph.back_end)
        return times[asked[-1]]

    monkeypatch.setattr(choice, "_milliseconds", timed)
    encoder = new_encoder(tokenizer)
    choose_back_end(encoder, "auto", "fp32", Store(tmp_path))
    assert encoder.back_end == "openvino"
    times["openvino"] = [9.0, 90.0]
    again = new_encoder(tokenizer)
    choose_back_end(again, "auto", "fp32", Store(tmp_path))
    assert again.back_end == "openvino"
    assert asked == ["torch", "openvino", "onnx"]
    [written] = (tmp_path / "back_end_times").glob("*/milliseconds.json")
    assert json.loads(written.read_text()) == {"torch": [3.0, 20.0], "openvino": [1.0, 50.0], "onnx": [2.0, 40.0]}


@needs_both
def test_auto_leaves_out_what_cannot_be_converted(
    tokenizer: PreTrainedTokenizerFast, tmp_path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(conversion, "EXPORTERS", (conversion._trace,))  # the other one takes seconds
    monkeypatch.setattr(choice, "SHAPES", ((1, 4),))
    monkeypatch.setattr(choice, "LIMITS", {"fp32": 0.0, "bf16": 0.0})  # which no graph can pass
    encoder = new_encoder(tokenizer)
    choose_back_end(encoder, "auto", "fp32", Store(tmp_path))
    assert encoder.back_end == "torch"
    assert "model.backend=auto leaves openvino out: BertModel cannot be converted for openvino (in fp32" in caplog.text
    assert "model.backend=auto leaves onnx out" in caplog.text
    refused = r"BertModel cannot be converted for onnx .* limit 0\); choose the back end torch"
    with pytest.raises(UserError, match=refused):
        choose_back_end(encoder, "onnx", "fp32", Store(tmp_path))
    assert list((tmp_path / "graphs").glob("*/")) == []


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_a_graph_for_one_shape_alone_is_refused(
    back_end: choice.GraphBackEnd, tokenizer: PreTrainedTokenizerFast, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "EXPORTERS", (conversion._trace,))

    class Constant(nn.Module):
        """What an exporter makes that takes the example's shape for a constant."""

        def __init__(self, encoder: Encoder) -> None:
            super().__init__()
            self.backbone = encoder.backbone

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return hidden.flatten(0, 1)[:32].reshape(2, 16, 32)

    encoder = new_encoder(tokenizer)

    def wrong(path) -> str | None:
        distance = distance_to_torch(encoder, Graph(back_end, "fp32", path, encoder.max_length))
        return None if distance < 1e-3 else "other vectors"

    with pytest.raises(UserError, match="BertModel cannot be converted"):
        convert(Constant(encoder), encoder.backbone, {HIDDEN: conversion.TOKENWISE}, back_end, tmp_path, wrong)


def test_signals_are_handled_after_a_graph_is_gone(tokenizer: PreTrainedTokenizerFast, store: Store) -> None:
    """OpenVINO gives the thread a stack for signal handlers, which must be there when Ctrl-C comes."""
    for seed in range(2):  # two graphs, of which the first one goes
        torch.manual_seed(seed)
        encoder = new_encoder(tokenizer)
        choose_back_end(encoder, "openvino", "fp32", store)
        encoder.encode(TEXTS, "document")
    del encoder
    gc.collect()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_what_a_back_end_does_not_compute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "multiplies_bf16", lambda device: False)
    assert graph_precision("openvino", "auto") == "fp32"
    with pytest.raises(ConfigError, match=r"this CPU multiplies no bf16.*set model.precision=fp32"):
        graph_precision("openvino", "bf16")
    monkeypatch.setattr(choice, "multiplies_bf16", lambda device: True)
    assert [graph_precision("openvino", asked) for asked in ("auto", "bf16", "fp32")] == ["bf16", "bf16", "fp32"]
    assert graph_precision("onnx", "auto") == "fp32"
    with pytest.raises(ConfigError, match=r"ONNX Runtime computes in fp32 on a CPU; set model.precision=fp32, or"):
        graph_precision("onnx", "bf16")


def test_a_back_end_that_is_not_installed_is_named(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^model.backend=onnx needs onnxruntime, onnx, onnxscript, .*embfit\[onnx\]"):
        choose_back_end(new_encoder(tokenizer), "onnx", "auto", None)
    encoder = new_encoder(tokenizer)
    choose_back_end(encoder, "auto", "auto", None)
    assert encoder.back_end == "torch"


@needs_both
def test_a_model_on_another_device_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError, match=r"openvino computes on a CPU, and the model is on meta; set model.backend="):
        choose_back_end(new_encoder(tokenizer).to("meta"), "openvino", "auto", None)


@pytest.mark.slow
@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_a_model_that_cannot_be_traced_is_exported(
    back_end: choice.GraphBackEnd, tokenizer: PreTrainedTokenizerFast, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untraceable(*arguments: object) -> None:
        raise RuntimeError("it branches on values")

    monkeypatch.setattr(conversion, "EXPORTERS", (untraceable, conversion._export))
    encoder = new_encoder(tokenizer)
    choose_back_end(encoder, back_end, "fp32", Store(tmp_path))
    assert encoder.graph is not None
    assert distance_to_torch(encoder, encoder.graph) < 1e-5
