"""Exported graphs give an encoder's vectors, in the folders that other servers read."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerFast

from embfit.atomic_files import FileFacts
from embfit.errors import ConfigError
from embfit.model import BiEncoder
from embfit.model.back_ends.graph import installed, open_graph
from embfit.model.export import triton, write_graph_folder, write_triton_repository
from embfit.model.export.graph_folder import VECTORS
from tests.conftest import TEXTS, new_encoder

pytestmark = pytest.mark.skipif(
    not (installed("onnx") and installed("openvino")), reason="onnxruntime or openvino is not installed"
)
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("tritonclient") is None, reason="tritonclient is not installed"
)


def padded(encoder: BiEncoder, texts: list[str], kind: str) -> tuple[np.ndarray, np.ndarray]:
    tokens = encoder.tokenize(texts, kind)  # type: ignore[arg-type]
    ids, mask = tokens.padded(np.arange(len(tokens)), encoder.pad_id, encoder.pads_left)
    return ids.numpy(), mask.numpy()


@pytest.mark.parametrize(("back_end", "pooling"), [("onnx", "mean"), ("openvino", "cls"), ("onnx", "lasttoken")])
def test_a_folder_has_the_graph_and_the_model(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, back_end: Any, pooling: str
) -> None:
    encoder: Any = new_encoder(tokenizer, 0.1, pooling=pooling, query_prompt="q: ", document_prompt="d: ")
    manifest = write_graph_folder(encoder, tmp_path / "export", back_end)
    run = open_graph(back_end, "fp32", tmp_path / "export" / manifest["graph"], VECTORS)
    assert np.abs(run(*padded(encoder, TEXTS, "query")) - encoder.encode(TEXTS, "query")).max() < 1e-5
    assert json.loads((tmp_path / "export" / "export.json").read_text()) == manifest
    assert manifest["prompts"] == {"query": "q: ", "document": "d: "}
    assert manifest["outputs"] == {"sentence_embedding": ["batch", 32]}
    assert manifest["checked"]["largest_distance"] < 1e-5
    assert {path for path in manifest["files"] if path.startswith(f"{back_end}/")} == {
        f"{back_end}/{name}"
        for name in ({"model.onnx"} if back_end == "onnx" else {"openvino_model.xml", "openvino_model.bin"})
    }
    for path, facts in manifest["files"].items():
        assert vars(FileFacts.of(tmp_path / "export" / path)) == facts
    if pooling != "lasttoken":
        peer = SentenceTransformer(str(tmp_path / "export"), device="cpu")
        found = peer.encode(TEXTS, prompt_name="document")
        assert np.abs(found - encoder.encode(TEXTS, "document")).max() < 1e-5


def test_lengths_double_up_to_the_longest_that_is_read() -> None:
    assert triton.padded_lengths(256) == [16, 32, 64, 128, 256]
    assert triton.padded_lengths(100) == [16, 32, 64, 100]
    assert triton.padded_lengths(8) == [8]


def tokens_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load a tokens model as Triton's Python back end does, with a stand-in for the module that Triton gives it."""
    given: Any = ModuleType("triton_python_backend_utils")
    given.Tensor = lambda name, values: SimpleNamespace(name=name, as_numpy=lambda: values)
    given.InferenceResponse = lambda output_tensors: output_tensors
    given.get_input_tensor_by_name = lambda request, name: request[name]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", given)
    spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from google.protobuf import json_format, text_format

    config = text_format.Parse((folder / "config.pbtxt").read_text(), triton._schema().ModelConfig())
    model = module.TritonPythonModel()
    model.initialize({"model_config": json_format.MessageToJson(config, preserving_proto_field_name=True)})
    return model


@needs_triton
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_repository_answers_texts(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setattr(tokenizer, "padding_side", side)
    encoder: Any = new_encoder(tokenizer, query_prompt="q: ", max_length=24)
    manifest = write_triton_repository(encoder, tmp_path / "models", "docs", 8)
    assert sorted(path.name for path in (tmp_path / "models").iterdir() if path.is_dir()) == [
        "docs_document",
        "docs_document_tokens",
        "docs_graph",
        "docs_query",
        "docs_query_tokens",
    ]
    run = open_graph("onnx", "fp32", tmp_path / "models" / manifest["graph"], VECTORS)
    texts = [*TEXTS[:3], "the heart " * 40, "naïve"]
    for kind in ("query", "document"):
        model = tokens_model(tmp_path / "models" / f"docs_{kind}_tokens", monkeypatch)
        request = {"text": SimpleNamespace(as_numpy=lambda: np.array([[text.encode()] for text in texts], object))}
        [(ids, mask)] = model.execute([request])
        assert ids.as_numpy().shape == (5, 24)
        assert np.abs(run(ids.as_numpy(), mask.as_numpy()) - encoder.encode(texts, kind)).max() < 1e-5
        [(short, _)] = model.execute([{"text": SimpleNamespace(as_numpy=lambda: np.array([[b"the heart"]], object))}])
        assert short.as_numpy().shape == (1, 16)


@needs_triton
def test_a_configuration_is_held_to_tritons_schema(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    encoder: Any = new_encoder(tokenizer)
    configs = dict(triton.model_configs(encoder, "docs", 8))
    schema = triton._schema()
    written = triton._in_text(schema, configs["docs_graph"]).splitlines()
    assert [line for line in written if not line.startswith((" ", "}"))] == [
        "max_batch_size: 8",
        "input {",
        "input {",
        "output {",
        "dynamic_batching {",
        'backend: "onnxruntime"',
    ]
    with pytest.raises(Exception, match="max_batchsize"):
        triton._in_text(schema, {"max_batchsize": 8})
    with pytest.raises(ConfigError, match=r"task.name=a/b: a model's name has letters"):
        write_triton_repository(encoder, tmp_path / "models", "a/b", 8)
    assert not (tmp_path / "models").exists()


def test_tritons_schema_has_to_be_there(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tritonclient" else found(name, *rest)
    )
    encoder: Any = new_encoder(tokenizer)
    with pytest.raises(ConfigError, match=r"task.format=triton needs tritonclient.*embfit\[triton\]"):
        write_triton_repository(encoder, tmp_path / "models", "docs", 8)
