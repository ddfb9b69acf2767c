"""Writes a model repository for NVIDIA Triton: text in, vector out, batched on the server.

    REPOSITORY/NAME_query        an ensemble: tokens of queries, then the graph
    REPOSITORY/NAME_document     the same for documents
    REPOSITORY/NAME_query_tokens, NAME_document_tokens    text → token ids, padded to one of a few lengths
    REPOSITORY/NAME_graph        token ids → vectors, with dynamic batching

Configurations are messages of Triton's own schema (`ModelConfig`, from the package tritonclient), so an unknown field
cannot be written.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from embfit.atomic_files import replacing_folder, write_text
from embfit.errors import ConfigError
from embfit.model.back_ends.graph import FILES, INPUTS, check_installed
from embfit.model.bi_encoder import BiEncoder
from embfit.model.encoder import Kind
from embfit.model.export.graph_folder import VECTORS, describe, write_graph, write_manifest
from embfit.tokens import tokenizer_lock

SHORTEST = 16  # the shortest length to which texts are padded
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TOKENS_MODEL = Path(__file__).with_name("triton_tokens.py")  # copied into the repository, never imported
KINDS: tuple[Kind, ...] = ("query", "document")
IDS = [{"name": name, "data_type": "TYPE_INT64", "dims": [-1]} for name in INPUTS]


def write_triton_repository(encoder: BiEncoder, folder: Path, name: str, max_batch: int) -> dict[str, Any]:
    """Write a model repository atomically.

    Args:
        encoder: the encoder, on a CPU and in PyTorch.
        folder: the folder, which is replaced.
        name: the prefix of the models' names.
        max_batch: the largest batch of the graph.

    Returns:
        The manifest.

    Raises:
        ConfigError: the packages for converting and checking are not installed, or the name is invalid.
        UserError: the model cannot be converted, or its graph gives different vectors.
    """
    check_installed("onnx", "task.format=triton, which writes ONNX: back end")
    schema = _schema()
    if not NAME.fullmatch(name):
        raise ConfigError(f"task.name={name}: a model's name has letters, digits, '.', '_' and '-'")
    configs = dict(model_configs(encoder, name, max_batch))
    with replacing_folder(folder) as unfinished:
        for model, config in configs.items():
            (unfinished / model / "1").mkdir(parents=True)
            write_text(unfinished / model / "config.pbtxt", _in_text(schema, config))
        for kind in KINDS:
            _write_tokens_model(encoder, unfinished / f"{name}_{kind}_tokens" / "1")
        distance = write_graph(encoder, unfinished / f"{name}_graph" / "1", "onnx")
        manifest = {
            "graph": f"{name}_graph/1/{FILES['onnx']}",
            **describe(encoder, distance),
            "lengths": padded_lengths(encoder.settings.max_length),
            "max_batch": max_batch,
        }
        return write_manifest(unfinished, manifest)


def padded_lengths(longest: int) -> list[int]:
    """Return the lengths to which texts are padded: each twice the one before, and the model's longest."""
    lengths = []
    length = SHORTEST
    while length < longest:
        lengths.append(length)
        length *= 2
    return [*lengths, longest]


def model_configs(encoder: BiEncoder, name: str, max_batch: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the models of a repository, each with its configuration as values of `ModelConfig`."""
    vectors = [{"name": VECTORS, "data_type": "TYPE_FP32", "dims": [encoder.width]}]
    text = [{"name": "text", "data_type": "TYPE_STRING", "dims": [1]}]
    yield (
        f"{name}_graph",
        {
            "backend": "onnxruntime",
            "max_batch_size": max_batch,
            "input": IDS,
            "output": vectors,
            "dynamic_batching": {},
        },
    )
    for kind in KINDS:
        settings = {
            "lengths": ",".join(map(str, padded_lengths(encoder.settings.max_length))),
            "prompt": json.dumps(encoder.prompt(kind)),
            "padding_id": str(encoder.pad_id),
            "padding_side": "left" if encoder.pads_left else "right",
        }
        yield (
            f"{name}_{kind}_tokens",
            {
                "backend": "python",
                "max_batch_size": max_batch,
                "input": text,
                "output": IDS,
                "instance_group": [{"kind": "KIND_CPU"}],
                "parameters": {key: {"string_value": value} for key, value in settings.items()},
            },
        )
        passed_on = {one: one for one in INPUTS}
        steps = [
            {"model_name": f"{name}_{kind}_tokens", "input_map": {"text": "text"}, "output_map": passed_on},
            {"model_name": f"{name}_graph", "input_map": passed_on, "output_map": {VECTORS: VECTORS}},
        ]
        yield (
            f"{name}_{kind}",
            {
                "platform": "ensemble",
                "max_batch_size": max_batch,
                "input": text,
                "output": vectors,
                "ensemble_scheduling": {"step": [{"model_version": -1, **step} for step in steps]},
            },
        )


def _write_tokens_model(encoder: BiEncoder, folder: Path) -> None:
    shutil.copyfile(TOKENS_MODEL, folder / "model.py")
    with tokenizer_lock(encoder.tokenizer):
        encoder.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def _schema() -> ModuleType:
    """Load the messages of Triton's schema without the rest of the package, which would import gRPC.

    Raises:
        ConfigError: tritonclient is not installed.
    """
    spec = importlib.util.find_spec("tritonclient")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise ConfigError(
            "task.format=triton needs tritonclient, whose schema is used to check configurations: "
            "pip install 'embfit[triton]'"
        )
    name = "model_config_pb2"
    found = importlib.util.spec_from_file_location(name, Path(places[0]) / "grpc" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _in_text(schema: ModuleType, config: Mapping[str, Any]) -> str:
    """Return a configuration in protobuf's text format; an unknown field is an error."""
    from google.protobuf import json_format, text_format

    message = json_format.ParseDict(config, schema.ModelConfig())
    written: str = text_format.MessageToString(message)
    assert text_format.Parse(written, schema.ModelConfig()) == message
    return written
