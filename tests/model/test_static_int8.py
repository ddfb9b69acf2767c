"""Static int8: near fp32, the same in any batch, made once, and only of the weights and processor that it is for."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from embfit.bundle import BundleVersions, open_bundle, opening
from embfit.errors import ConfigError, UserError
from embfit.model import Encoder, LateInteraction, Pretrained, save_encoder
from embfit.model.back_ends import choice, static_int8
from embfit.model.back_ends.choice import choose_back_end, convert_backbone
from embfit.model.back_ends.static_int8 import quantize_graph
from embfit.store import Store
from embfit.tokens import ATTENDED
from tests.bundle.conftest import make_version
from tests.conftest import TEXTS, new_encoder, new_late_encoder

pytestmark = pytest.mark.skipif(not choice.installed("onnx"), reason="onnxruntime is not installed")

LONG = ["the heart " * 40, "blood and bones " * 30]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def quantized(encoder: Encoder, store: Store, texts: list[str] = TEXTS) -> Encoder:
    """Have an encoder compute by its graph in int8."""
    plain = convert_backbone(encoder, "onnx", "fp32", store)
    encoder.graph = quantize_graph(encoder, plain, encoder.tokenize(texts, "document"), store)
    return encoder


@pytest.fixture(scope="module")
def folder(tokenizer: PreTrainedTokenizerFast, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that was quantised."""
    place = tmp_path_factory.mktemp("models") / "int8"
    save_encoder(quantized(new_encoder(tokenizer), store), place)
    return place


@pytest.mark.parametrize("make", [new_encoder, new_late_encoder])
def test_vectors_are_near_those_of_fp32(make, tokenizer: PreTrainedTokenizerFast, store: Store) -> None:
    encoder = make(tokenizer)
    expected = encoder.embed(TEXTS, "document").rows
    found = quantized(encoder, store).embed(TEXTS, "document").rows
    cosines = np.einsum("vd,vd->v", found, expected)
    assert 0.995 < cosines.min() < cosines.max() < 1 - 1e-7  # so it is not fp32 that computes
    assert (encoder.back_end, encoder.computes_in) == ("onnx", "int8")


def test_a_text_does_not_depend_on_long_neighbours(tokenizer: PreTrainedTokenizerFast, store: Store) -> None:
    encoder = quantized(new_encoder(tokenizer), store)
    alone = np.concatenate([encoder.encode([text], "document") for text in TEXTS])
    together = encoder.encode([*TEXTS, *LONG], "document")[: len(TEXTS)]
    assert np.abs(alone - together).max() < 1e-6


def test_products_with_weights_alone_are_in_8_bits(tokenizer: PreTrainedTokenizerFast, store: Store) -> None:
    import onnx

    graph = onnx.load(quantized(new_encoder(tokenizer), store).graph.path).graph
    arrays = {one.name: one for one in graph.initializer}
    made_of = {output: node for node in graph.node for output in node.output}
    weights = [
        arrays[made_of[node.input[1]].input[0]]
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm") and made_of.get(node.input[1], node).op_type == "DequantizeLinear"
    ]
    assert len(weights) == 2 * 6  # of each layer; the pooler's is no part of the hidden states
    assert {one.data_type for one in weights} == {onnx.TensorProto.INT8}
    named = {one.name for one in weights}
    read = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in named]
    scales = [arrays[node.input[1]] for node in read]
    assert {tuple(scale.dims) for scale in scales} == {(32,), (64,)}  # one for each output


def test_it_is_made_once_for_a_calibration(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, same, other = (new_encoder(tokenizer) for _ in range(3))
    plain = first.fingerprint("document")
    quantized(first, store)
    quantized(same, store)
    assert store.built.count("int8_graphs") == 1
    assert first.fingerprint("document") == same.fingerprint("document") != plain
    quantized(other, store, TEXTS[:3])
    assert other.fingerprint("document") != first.fingerprint("document")
    again: Encoder = pickle.loads(pickle.dumps(first))
    assert again.fingerprint("query") == first.fingerprint("query")
    assert np.array_equal(again.encode(TEXTS, "document"), first.encode(TEXTS, "document"))


def test_what_tokens_attend_to_is_part_of_a_calibration(tokenizer: PreTrainedTokenizerFast, store: Store) -> None:
    encoder = new_late_encoder(tokenizer)
    plain, tokens = convert_backbone(encoder, "onnx", "fp32", store), encoder.tokenize(TEXTS, "query")
    attended = replace(tokens, roles=tokens.roles | ATTENDED)  # as with model.attend_to_expansion
    digests = {quantize_graph(encoder, plain, one, store).digest for one in (tokens, attended, tokens)}
    assert len(digests) == 2


def test_a_folder_has_its_graph(folder: Path, tokenizer: PreTrainedTokenizerFast, store: Store, tmp_path: Path) -> None:
    asked = Pretrained(str(folder), backend="onnx", precision="int8")
    made, found = quantized(new_encoder(tokenizer), store), asked.load("cpu")
    assert found.fingerprint("document") == made.fingerprint("document")
    assert np.array_equal(found.encode(TEXTS, "document"), made.encode(TEXTS, "document"))
    plain = replace(asked, precision="fp32").load("cpu", store=store)
    assert plain.computes_in == "fp32"
    assert asked.by_pytorch == replace(asked, backend="torch", precision="fp32")
    save_encoder(found, tmp_path / "copy")
    assert (tmp_path / "copy" / "onnx" / "model_int8.onnx").read_bytes() == found.graph.path.read_bytes()


def test_late_interaction_from_a_folder(tokenizer: PreTrainedTokenizerFast, store: Store, tmp_path: Path) -> None:
    made = quantized(new_late_encoder(tokenizer), store)
    save_encoder(made, tmp_path / "late")
    found = LateInteraction(str(tmp_path / "late"), backend="onnx", precision="int8").load("cpu")
    assert np.array_equal(found.embed(TEXTS, "query").rows, made.embed(TEXTS, "query").rows)


def test_a_bundle_has_its_graph(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Pretrained(str(folder), backend="onnx", precision="int8").load("cpu")
    versions = BundleVersions(tmp_path, "docs")
    manifest = make_version(versions, encoder, Store(tmp_path / "store"))
    assert (manifest.model.precision, manifest.model.back_end) == ("int8", "onnx")
    with open_bundle(versions.folder, 1, "cpu") as bundle:
        assert bundle.encoder.computes_in == "int8"
        assert bundle.probe_distance < 1e-12
        assert bundle.encoder.fingerprint("query") == manifest.model.query
    with open_bundle(versions.folder, 1, "cpu", backend="torch") as bundle:  # held to the vectors of int8
        assert bundle.encoder.computes_in == "fp32"
        assert 1e-7 < bundle.probe_distance < 1e-3
    with open_bundle(versions.folder, 1, "cpu", backend="auto") as bundle:  # no other back end gives these vectors
        assert bundle.encoder.computes_in == "int8"
    monkeypatch.setattr(opening, "APART", 1e-7)
    with pytest.raises(UserError, match="was encoded in int8, and its model gives other vectors in fp32"):
        open_bundle(versions.folder, 1, "cpu", backend="torch")


needs_openvino = pytest.mark.skipif(not choice.installed("openvino"), reason="openvino is not installed")


@needs_openvino
@pytest.mark.parametrize("make", [new_encoder, new_late_encoder])
def test_openvino_computes_the_same_graph(
    make, tokenizer: PreTrainedTokenizerFast, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make(tokenizer)
    expected = encoder.embed(TEXTS, "document").rows
    by_onnx = quantized(encoder, store).embed(TEXTS, "document").rows
    save_encoder(encoder, tmp_path / "int8")
    late = make is new_late_encoder
    asked = (LateInteraction if late else Pretrained)(str(tmp_path / "int8"), backend="openvino", precision="int8")
    for hardware in (False, True):
        monkeypatch.setattr("embfit.model.back_ends.graph.multiplies_bf16", lambda device, there=hardware: there)
        found = asked.load("cpu")
        assert (found.back_end, found.computes_in) == ("openvino", "int8")
        rows = found.embed(TEXTS, "document").rows
        cosines = np.einsum("vd,vd->v", rows, expected)
        assert 0.99 < cosines.min() < cosines.max() < 1 - 1e-7
        assert np.einsum("vd,vd->v", rows, by_onnx).min() > (0.999 if hardware else 0.9999)
        alone = found.embed(TEXTS[:1], "document").rows
        assert np.abs(found.embed([TEXTS[0], *LONG], "document").rows[: len(alone)] - alone).max() < 1e-6
        monkeypatch.undo()


@needs_openvino
def test_bf16_beside_int8_is_part_of_the_fingerprint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Pretrained(str(folder), backend="openvino", precision="int8")
    seen = {replace(asked, backend="onnx").load("cpu").fingerprint("document")}
    for hardware in (False, True):
        monkeypatch.setattr("embfit.model.back_ends.graph.multiplies_bf16", lambda device, there=hardware: there)
        seen.add(asked.load("cpu").fingerprint("document"))
    assert len(seen) == 3


@needs_openvino
def test_a_bundle_in_int8_is_opened_by_both_back_ends(folder: Path, tmp_path: Path) -> None:
    encoder = Pretrained(str(folder), backend="openvino", precision="int8").load("cpu")
    versions = BundleVersions(tmp_path, "docs")
    manifest = make_version(versions, encoder, Store(tmp_path / "store"))
    assert (manifest.model.precision, manifest.model.back_end) == ("int8", "openvino")
    for back_end, furthest in ((None, 1e-12), ("auto", 1e-12), ("onnx", 1e-3)):
        with open_bundle(versions.folder, 1, "cpu", backend=back_end) as bundle:
            assert bundle.encoder.computes_in == "int8"
            assert bundle.probe_distance < furthest


def test_what_cannot_be_computed_is_refused(
    folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for back_end in ("torch", "auto"):
        with pytest.raises(ConfigError, match=f"model.backend={back_end} does not .* set model.backend=openvino"):
            Pretrained(str(folder), backend=back_end, precision="int8")
        with pytest.raises(ConfigError, match=f"server.backend={back_end} does not .* set server.backend=openvino"):
            choose_back_end(new_encoder(tokenizer), back_end, "int8", None, "server.backend")
    encoder = new_encoder(tokenizer)
    save_encoder(encoder, tmp_path / "plain")
    asked = Pretrained(str(tmp_path / "plain"), backend="onnx", precision="int8")
    with pytest.raises(UserError, match=r"plain has no graph in int8; task=quantize makes one: embfit quantize"):
        asked.load("cpu")
    with torch.no_grad():
        next(encoder.backbone.parameters()).mul_(1.5)
    save_encoder(encoder, tmp_path / "plain")
    shutil.copytree(folder / "onnx", tmp_path / "plain" / "onnx")
    with pytest.raises(UserError, match="was made of other weights than"):
        asked.load("cpu")
    record = folder / "onnx" / "int8.json"
    monkeypatch.setattr(static_int8, "multiplies_int8", lambda: False)
    if json.loads(record.read_text())["full_range"]:
        with pytest.raises(UserError, match=r"was made for processors that multiply 8 bits \(VNNI\)"):
            Pretrained(str(folder), backend="onnx", precision="int8").load("cpu")
    (tmp_path / "plain" / "onnx" / "int8.json").write_text("{")
    with pytest.raises(UserError, match=r"int8.json is damaged"):
        asked.load("cpu")


def test_without_vnni_weights_have_seven_bits(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx
    from onnx import numpy_helper

    monkeypatch.setattr(static_int8, "multiplies_int8", lambda: False)
    encoder = quantized(new_encoder(tokenizer), Store(tmp_path))
    graph = onnx.load(encoder.graph.path).graph
    largest = [np.abs(numpy_helper.to_array(one)).max() for one in graph.initializer if one.data_type == 3]
    assert max(largest) <= 64
