"""The folder layout of sentence-transformers, read and written: what it, TEI and vLLM load.

Written in the dialect that all their releases read: module types under `sentence_transformers.models`, pooling as
`pooling_mode_*` booleans, the maximum length both in `sentence_bert_config.json` and as the tokenizer's own. Both that
dialect and the one of release 6 are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embfit.errors import UserError
from embfit.model.pooling import Pooling
from embfit.model.precision import Precision
from embfit.store import replacing_folder, write_text

Attention: TypeAlias = Literal["auto", "sdpa", "eager", "flash_attention_2"]

if TYPE_CHECKING:
    from embfit.model.encoder import Encoder

MODULES = "sentence_transformers.models"
POOLING_FLAGS: Mapping[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}
OTHER_POOLINGS = ("max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens")
HEAD = "ForSequenceClassification"  # how architectures that score pairs are named
DENSE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
NO_LENGTH = 10**6  # transformers writes 10^30 for a tokenizer without a limit
ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "Tanh": nn.Tanh,
    "Identity": nn.Identity,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
}


@dataclass(frozen=True)
class Settings:
    """What an encoder does around its backbone."""

    pooling: Pooling
    normalize: bool
    max_length: int
    query_prompt: str
    document_prompt: str
    precision: Precision = "auto"
    attention: Attention = "auto"
    compile: bool = False


@dataclass(frozen=True)
class FolderSettings:
    """What a model folder says of itself; None where it says nothing."""

    pooling: Pooling | None = None
    normalize: bool | None = None
    max_length: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    dense: tuple[str, ...] = ()


class Projection(nn.Module):
    """A dense layer after pooling (sentence-transformers' `Dense`): [N, in] → [N, out]."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        activation = str(config["activation_function"]).rsplit(".", 1)[-1]
        if activation not in ACTIVATIONS:
            raise UserError(
                f"the activation {activation!r} of a Dense module is not supported; known: {', '.join(ACTIVATIONS)}"
            )
        self.linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
        self.activation = ACTIVATIONS[activation]()

    def forward(self, vectors: Tensor) -> Tensor:
        """Project [N, in] to [N, out]."""
        projected: Tensor = self.activation(self.linear(vectors))
        return projected


def read_settings(folder: Path) -> FolderSettings:
    """Read what a sentence-transformers folder says; a plain transformers folder says nothing.

    Raises:
        UserError: the folder has a module or pooling that embfit does not know.
    """
    if not (folder / "modules.json").is_file():
        return FolderSettings()
    modules = [(str(module["type"]).rsplit(".", 1)[-1], module["path"]) for module in _read(folder / "modules.json")]
    unknown = [name for name, _ in modules if name not in ("Transformer", "Pooling", "Dense", "Normalize")]
    if unknown:
        raise UserError(
            f"{folder / 'modules.json'}: the module {unknown[0]!r} is not supported "
            "(Transformer, Pooling, Dense and Normalize are)"
        )
    paths = {name: folder / path for name, path in modules}
    prompts = _read(folder / "config_sentence_transformers.json").get("prompts") or {}
    similarity = _read(folder / "config_sentence_transformers.json").get("similarity_fn_name")
    return FolderSettings(
        pooling=_pooling(paths["Pooling"] / "config.json") if "Pooling" in paths else None,
        # without the module vectors keep their length, which matters to models compared by dot product alone
        normalize=True if "Normalize" in paths else (False if similarity == "dot" else None),
        max_length=_length(folder),
        query_prompt=prompts.get("query"),
        document_prompt=prompts.get("document", prompts.get("passage")),
        dense=tuple(path for name, path in modules if name == "Dense"),
    )


def holds_ranker(folder: Path) -> bool:
    """Say whether a model's folder is a cross-encoder's, and not an encoder's."""
    architectures = _read(folder / "config.json").get("architectures") or ()
    return any(name.endswith(HEAD) for name in architectures) and not (folder / "modules.json").is_file()


def read_projections(folder: Path, settings: FolderSettings) -> list[Projection]:
    """Load the dense layers that a folder has after its pooling.

    Raises:
        UserError: a file of theirs is missing, or the activation is not known.
    """
    return [_read_projection(folder / path) for path in settings.dense]


def _read_projection(folder: Path) -> Projection:
    weights = next((path for name in DENSE_WEIGHTS if (path := folder / name).is_file()), None)
    if weights is None or not (folder / "config.json").is_file():
        missing = "config.json" if weights else " or ".join(DENSE_WEIGHTS)
        raise UserError(f"{folder}: modules.json names this Dense module, but its {missing} is missing")
    projection = Projection(_read(folder / "config.json"))
    projection.load_state_dict(
        load_file(weights) if weights.suffix == ".safetensors" else torch.load(weights, weights_only=True)
    )
    return projection


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write an encoder as a folder that sentence-transformers, TEI and vLLM load: whole, or not at all.

    A model that is there already is replaced.

    Raises:
        OSError: the folder cannot be written; what was there is still there.
    """
    with replacing_folder(folder) as unfinished:
        _write_encoder(encoder, unfinished)


def _write_encoder(encoder: Encoder, folder: Path) -> None:
    settings = encoder.settings
    encoder.backbone.save_pretrained(folder)
    encoder.tokenizer.model_max_length = settings.max_length
    encoder.tokenizer.backend_tokenizer.no_truncation()  # else tokenizer.json carries the last batch's length along
    encoder.tokenizer.backend_tokenizer.no_padding()
    encoder.tokenizer.save_pretrained(folder)
    modules = ["Transformer", "Pooling", *["Dense"] * len(encoder.projections), *["Normalize"] * settings.normalize]
    paths = ["" if name == "Transformer" else f"{row}_{name}" for row, name in enumerate(modules)]
    for path, name in zip(paths, modules, strict=True):
        (folder / path).mkdir(exist_ok=True)
        if name == "Pooling":
            _write(folder / path / "config.json", _pooling_config(encoder))
    for path, projection in zip(paths[2:], encoder.projections, strict=False):
        _save_projection(projection, folder / path)
    _write(
        folder / "modules.json",
        [
            {"idx": row, "name": str(row), "path": path, "type": f"{MODULES}.{name}"}
            for row, (path, name) in enumerate(zip(paths, modules, strict=True))
        ],
    )
    _write(folder / "sentence_bert_config.json", {"max_seq_length": settings.max_length, "do_lower_case": False})
    _write(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": settings.query_prompt, "document": settings.document_prompt},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if settings.normalize else "dot",
        },
    )


def _length(folder: Path) -> int | None:
    said = _read(folder / "sentence_bert_config.json").get("max_seq_length")
    length = said or _read(folder / "tokenizer_config.json").get("model_max_length")
    return int(length) if length and length < NO_LENGTH else None


def _pooling(path: Path) -> Pooling:
    config = _read(path)
    if config.get("include_prompt") is False:
        raise UserError(f"{path}: pooling that leaves the prompt out (include_prompt: false) is not supported")
    chosen = [
        name for name in (*POOLING_FLAGS, *(f"pooling_mode_{name}" for name in OTHER_POOLINGS)) if config.get(name)
    ]
    if "pooling_mode" in config:  # sentence-transformers 6 writes one word
        chosen = [str(config["pooling_mode"])]
    if len(chosen) == 1:
        for flag, pooling in POOLING_FLAGS.items():
            if chosen[0] in (flag, pooling):
                return pooling
    raise UserError(
        f"{path}: the pooling {' + '.join(chosen) or 'none'} is not supported; {', '.join(POOLING_FLAGS.values())} are"
    )


def _pooling_config(encoder: Encoder) -> dict[str, Any]:
    flags = {name: pooling == encoder.settings.pooling for name, pooling in POOLING_FLAGS.items()}
    return {
        "word_embedding_dimension": int(encoder.backbone.config.get_text_config().hidden_size),
        **flags,
        **{f"pooling_mode_{name}": False for name in OTHER_POOLINGS},
        "include_prompt": True,
    }


def _save_projection(projection: nn.Module, folder: Path) -> None:
    if not isinstance(projection, Projection):
        raise TypeError(f"cannot write a {type(projection).__name__} as a Dense module")
    linear = projection.linear
    activation = type(projection.activation)
    _write(
        folder / "config.json",
        {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": linear.bias is not None,
            "activation_function": f"{activation.__module__}.{activation.__name__}",
        },
    )
    save_file(
        {name: tensor.contiguous() for name, tensor in projection.state_dict().items()}, folder / "model.safetensors"
    )


def _read(path: Path) -> Any:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from error


def _write(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")
