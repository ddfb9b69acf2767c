"""Writes model folders, atomically.

Bi-encoders are written in the dialect that all releases of sentence-transformers, TEI and vLLM read: module types under
`sentence_transformers.models`, pooling as `pooling_mode_*` booleans, the maximum length both in
`sentence_bert_config.json` and as the tokenizer's own. Late-interaction encoders are written in PyLate's dialect, which
PyLate and sentence-transformers' `MultiVectorEncoder` (from 6 on) both load; what the latter saves PyLate cannot.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import nn

from embfit.atomic_files import replacing_folder, write_text
from embfit.model.back_ends.static_int8 import copy_quantized
from embfit.model.bi_encoder import BiEncoder
from embfit.model.cross_encoder import CrossEncoder
from embfit.model.encoder import Encoder
from embfit.model.folder import OTHER_POOLINGS, POOLING_FLAGS, ROUTED, ROUTER, ROUTES
from embfit.model.late_interaction import LateInteractionEncoder
from embfit.model.projection import Projection, UnitLength
from embfit.tokens import tokenizer_lock

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODULES = "sentence_transformers.models"
PYLATE_DENSE = "pylate.models.Dense.Dense"


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write an encoder, atomically, as a folder that other libraries can load.

    If it computes with an int8 graph, the graph is copied to `onnx/`. An existing model is replaced.

    Raises:
        OSError: the folder cannot be written; its old content is unchanged.
    """
    with replacing_folder(folder) as unfinished:
        encoder.backbone.save_pretrained(unfinished)
        _save_tokenizer(encoder.tokenizer, encoder.max_length, unfinished)
        _write(unfinished / "sentence_bert_config.json", {"max_seq_length": encoder.max_length, "do_lower_case": False})
        _write_modules(encoder, unfinished)
        if encoder.graph is not None and encoder.graph.precision == "int8":
            copy_quantized(encoder.graph, unfinished)


def save_cross_encoder(cross_encoder: CrossEncoder, folder: Path) -> None:
    """Write a cross-encoder as a folder that transformers and sentence-transformers' `CrossEncoder` load.

    It is written atomically; an existing model is replaced.

    Raises:
        OSError: the folder cannot be written; its old content is unchanged.
    """
    with replacing_folder(folder) as unfinished:
        # scores are logits; sentence-transformers would apply a sigmoid
        cross_encoder.backbone.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
        cross_encoder.backbone.save_pretrained(unfinished)
        _save_tokenizer(cross_encoder.tokenizer, cross_encoder.max_length, unfinished)


@singledispatch
def _write_modules(encoder: Encoder, folder: Path) -> None:
    """Write the modules around the backbone of an encoder."""
    raise TypeError(f"embfit knows no folder for a {type(encoder).__name__}")


@_write_modules.register
def _(encoder: BiEncoder, folder: Path) -> None:
    settings = encoder.settings
    head = ["Dense" if isinstance(layer, Projection) else "Normalize" for layer in encoder.head]
    routes = ["Router"] if encoder.query_adapter is not None else []
    modules = ["Transformer", "Pooling", *head, *["Normalize"] * settings.normalize, *routes]
    paths = ["" if name == "Transformer" else f"{row}_{name}" for row, name in enumerate(modules)]
    _list_modules(folder, paths, [f"{MODULES}.{name}" for name in modules])
    _write(folder / paths[1] / "config.json", _pooling_config(encoder))
    for path, layer in zip(paths[2:], encoder.head, strict=False):
        if not isinstance(layer, UnitLength):
            _save_layer(layer, folder / path)
    if encoder.query_adapter is not None:
        _save_routes(encoder.query_adapter, folder / paths[-1])
    _write(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": settings.query_prompt, "document": settings.document_prompt},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if settings.normalize else "dot",
        },
    )


@_write_modules.register
def _(encoder: LateInteractionEncoder, folder: Path) -> None:
    settings = encoder.settings
    paths = ["", *(f"{row}_Dense" for row in range(1, len(encoder.head) + 1))]
    _list_modules(folder, paths, [f"{MODULES}.Transformer", *[PYLATE_DENSE] * len(encoder.head)])
    for path, layer in zip(paths[1:], encoder.head, strict=True):
        _save_layer(layer, folder / path)
    _write(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "ColBERT",
            "prompts": {"query": "", "document": ""},  # sentence-transformers would read them, but PyLate would not
            "default_prompt_name": None,
            "similarity_fn_name": "MaxSim",
            "query_prefix": settings.query_marker,
            "document_prefix": settings.document_marker,
            "query_length": settings.query_length,
            "document_length": settings.document_length,
            "do_query_expansion": settings.expansion == "fixed",
            "attend_to_expansion_tokens": settings.attend_to_expansion,
            "skiplist_words": list(settings.skip),
        },
    )


def _save_routes(adapter: Projection, folder: Path) -> None:
    """Write a query adapter as sentence-transformers' `Router` (from 5.0), which leaves documents unchanged."""
    for name in ROUTED:
        (folder / name).mkdir()
    _save_layer(adapter, folder / ROUTES["query"][0])
    _write(
        folder / ROUTER,
        {
            "types": {name: f"{MODULES}.{name.rsplit('_', 1)[-1]}" for name in ROUTED},
            "structure": ROUTES,
            "parameters": {"default_route": "document", "allow_empty_key": True},
        },
    )


def _list_modules(folder: Path, paths: Sequence[str], types: Sequence[str]) -> None:
    """Make the modules' folders, and write `modules.json`."""
    for path in paths:
        (folder / path).mkdir(exist_ok=True)
    _write(
        folder / "modules.json",
        [
            {"idx": row, "name": str(row), "path": path, "type": kind}
            for row, (path, kind) in enumerate(zip(paths, types, strict=True))
        ],
    )


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int, folder: Path) -> None:
    tokenizer.model_max_length = max_length
    with tokenizer_lock(tokenizer):
        tokenizer.backend_tokenizer.no_truncation()  # otherwise tokenizer.json would contain the last batch's length
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":  # the name in transformers 5, which 4 does not know
        _write(path, {**config, "tokenizer_class": "PreTrainedTokenizerFast"})


def _pooling_config(encoder: BiEncoder) -> dict[str, Any]:
    flags = {name: pooling == encoder.settings.pooling for name, pooling in POOLING_FLAGS.items()}
    return {
        "word_embedding_dimension": int(encoder.backbone.config.get_text_config().hidden_size),
        **flags,
        **{f"pooling_mode_{name}": False for name in OTHER_POOLINGS},
        "include_prompt": True,
    }


def _save_layer(layer: nn.Module, folder: Path) -> None:
    if not isinstance(layer, Projection):
        raise TypeError(f"cannot write a {type(layer).__name__} as a Dense module")
    linear = layer.linear
    activation = type(layer.activation)
    _write(
        folder / "config.json",
        {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": linear.bias is not None,
            "activation_function": f"{activation.__module__}.{activation.__name__}",
            **({"use_residual": True} if layer.use_residual else {}),  # early releases do not know the key
        },
    )
    save_file({name: tensor.contiguous() for name, tensor in layer.state_dict().items()}, folder / "model.safetensors")


def _write(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")
