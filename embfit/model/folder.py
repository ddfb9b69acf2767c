"""Reads a model folder of sentence-transformers, in the formats of all its releases.

Every setting is applied, known to change nothing that embfit computes, or refused with the name of its file: a wrongly
read setting would give wrong vectors without an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, TypeAlias, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from embfit.errors import UserError, first_line
from embfit.model.pooling import Pooling
from embfit.model.projection import Projection, UnitLength

Module: TypeAlias = Literal["Transformer", "Pooling", "Dense", "Normalize", "Router"]

LIBRARY = "sentence_transformers."  # prefix of the types of its own modules
KNOWN = ("Transformer", "Pooling", "Dense", "Normalize", "Router")
ROUTER = "router_config.json"
ROUTES = {"query": ["query_0_Dense", "query_1_Normalize"], "document": ["document_0_Normalize"]}
ROUTED = [name for names in ROUTES.values() for name in names]
POOLING_FLAGS: Mapping[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}
OTHER_POOLINGS = ("max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens")
HEAD = "ForSequenceClassification"  # suffix of architectures that score pairs
DENSE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
NO_LENGTH = 10**6  # transformers writes 10^30 for a tokenizer without a limit

TEXT_SETTINGS = "sentence_bert_config.json"
BACKBONES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")

ANY = "any value"
EMPTY: tuple[Any, ...] = (None, False, {}, [], "")
UNREAD: Mapping[str, Mapping[str, Any]] = {
    "modules.json": {"idx": ANY, "name": ANY, "kwargs": EMPTY},
    "config_sentence_transformers.json": {"__version__": ANY, "model_type": (None, "SentenceTransformer")},
    TEXT_SETTINGS: {
        "transformer_task": (None, "feature-extraction"),
        "modality_config": ANY,  # about other inputs than text
        "module_output_name": (None, "token_embeddings"),
        "processing_kwargs": EMPTY,
        "unpad_inputs": ANY,  # about how batches are computed, without effect on results
        "query_length": EMPTY,
        "document_length": EMPTY,
        "query_expansion": EMPTY,
        "model_args": EMPTY,
        "tokenizer_args": EMPTY,
        "config_args": EMPTY,
    },
    "Pooling": {"word_embedding_dimension": ANY, "embedding_dimension": ANY},
    "Dense": {
        "module_input_name": (None, "sentence_embedding"),
        "module_output_name": (None, "sentence_embedding"),
    },
    "Normalize": {
        "module_input_name": (None, "sentence_embedding"),
        "module_output_name": (None, "sentence_embedding"),
    },
    "token Dense": {
        "module_input_name": (None, "token_embeddings"),
        "module_output_name": (None, "token_embeddings"),
    },
    "token Normalize": {
        "module_input_name": ("token_embeddings",),
        "module_output_name": (None, "token_embeddings"),
    },
    "MultiVectorMask": {"keep_only_token_ids": EMPTY, "skiplist_tasks": (None, "document", ["document"])},
    "late interaction": {
        "__version__": ANY,
        "model_type": ANY,
        "similarity_fn_name": ANY,  # the mean and the sum of MaxSim rank equally
        "default_prompt_name": EMPTY,
    },
}
"""Keys that embfit does not read, by file or module: the values that change nothing for it."""


@dataclass(frozen=True)
class FolderSettings:
    """The settings in a model folder; None for those that it does not have.

    Args:
        pooling: how token embeddings become one vector.
        normalize: whether vectors get unit length at the end.
        max_length: the most tokens of a text.
        query_prompt: the text that is put before each query.
        document_prompt: the text that is put before each document.
        lower_case: whether to convert texts to lower case, even if the tokenizer does not.
        head: the modules between pooling and the final normalisation, in order, each with its folder.
        router: the folder of the query adapter after these.
    """

    pooling: Pooling | None = None
    normalize: bool | None = None
    max_length: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    lower_case: bool = False
    head: tuple[tuple[Module, str], ...] = ()
    router: str | None = None


def read_settings(folder: Path) -> FolderSettings:
    """Read the settings of a sentence-transformers folder; a plain transformers folder has none.

    Raises:
        UserError: embfit does not support a module, the order of modules, or a setting of the folder.
    """
    if not (folder / "modules.json").is_file():
        return FolderSettings()
    path = folder / "config_sentence_transformers.json"
    similarity = read_json(path).get("similarity_fn_name")
    said = read_known(path, ("prompts", "default_prompt_name", "similarity_fn_name"))
    modules = _modules(folder / "modules.json")
    router = modules.pop()[1] if modules[-1][0] == "Router" else None
    pooling, head = modules[1:2], modules[2:]
    ends_in_unit_length = bool(head) and head[-1][0] == "Normalize"
    text = read_known(text_settings(folder), ("max_seq_length", "do_lower_case"), TEXT_SETTINGS)
    prompts = said.get("prompts") or {}
    default = prompts.get(said.get("default_prompt_name"))
    return FolderSettings(
        pooling=_pooling(folder / pooling[0][1] / "config.json") if pooling else None,
        # without the module, vectors keep their length, which matters for models compared by dot product
        normalize=True if ends_in_unit_length else (False if similarity == "dot" else None),
        max_length=_length(folder, text.get("max_seq_length")),
        query_prompt=prompts.get("query", default),
        document_prompt=prompts.get("document", prompts.get("passage", default)),
        lower_case=bool(text.get("do_lower_case")),
        head=tuple(head[:-1] if ends_in_unit_length else head),
        router=router,
    )


def holds_cross_encoder(folder: Path) -> bool:
    """Return whether a model's folder is a cross-encoder's, not an encoder's."""
    return has_classification_head(folder) and not (folder / "modules.json").is_file()


def has_classification_head(folder: Path) -> bool:
    """Return whether a model has a classification head, as a cross-encoder has."""
    architectures = read_json(folder / "config.json").get("architectures") or ()
    return any(name.endswith(HEAD) for name in architectures)


def read_head(folder: Path, settings: FolderSettings) -> list[Projection | UnitLength]:
    """Load a folder's modules between pooling and the final normalisation, in order.

    Raises:
        UserError: a file is missing, or embfit does not support a layer.
    """
    return [read_layer(folder / path) if name == "Dense" else UnitLength() for name, path in settings.head]


def read_query_adapter(folder: Path, settings: FolderSettings) -> Projection | None:
    """Load the query adapter of a folder; None if it has none.

    Raises:
        UserError: the routes are not those of a query adapter, or a file is missing.
    """
    if settings.router is None:
        return None
    path = folder / settings.router / ROUTER
    config = read_json(path)
    routes = {**config, "parameters": None} if isinstance(config, dict) else {}
    kinds = [str(kind).rsplit(".", 1)[-1] for kind in (routes.get("types") or {}).values()]
    if routes.get("structure") != ROUTES or sorted(kinds) != ["Dense", "Normalize", "Normalize"]:
        raise UserError(
            f"{path}: these routes are not supported; those of a query adapter are: query = Dense, Normalize; "
            "document = Normalize"
        )
    return read_layer(folder / settings.router / ROUTES["query"][0])


def _modules(path: Path) -> list[tuple[Module, str]]:
    """Return the names and folders of a model's modules, in order of computation.

    Raises:
        UserError: a module is unknown, or at a place where embfit does not support it.
    """
    modules = []
    for entry in read_json(path):
        check_keys(path, "modules.json", entry, ("type", "path"))
        kind = str(entry["type"])
        name = kind.rsplit(".", 1)[-1]
        if name not in KNOWN or not kind.startswith(LIBRARY):
            raise UserError(
                f"{path}: the module {kind!r} is not supported (sentence-transformers' Transformer, Pooling, Dense, "
                "Normalize and a last Router are)"
            )
        if name == "Transformer" and entry["path"]:
            raise UserError(f"{path}: the Transformer lies in {entry['path']}; only one in the folder itself is read")
        if name == "Normalize":
            read_known(path.parent / str(entry["path"]) / "config.json", (), name)
        modules.append((cast(Module, name), str(entry["path"])))
    names = [name for name, _ in modules]
    if names[-1:] == ["Router"]:
        if names[-2:-1] != ["Normalize"]:
            raise UserError(f"{path}: a Router is supported behind Normalize alone")
        names.pop()
    first = (["Transformer"], ["Transformer", "Pooling"])
    if names[:2] not in first or {*names[2:]} & {"Transformer", "Pooling", "Router"}:
        raise UserError(
            f"{path}: the order {', '.join(names) or 'of no module'} is not supported; Transformer comes first, then "
            "Pooling, then Dense and Normalize in any order"
        )
    return modules


def text_settings(folder: Path) -> Path:
    """Return the file with the settings for reading text; early releases named it after the kind of backbone."""
    named = [folder / f"sentence_{kind}_config.json" for kind in BACKBONES]
    return next((path for path in named if path.is_file()), folder / TEXT_SETTINGS)


def read_layer(folder: Path, module: str = "Dense") -> Projection:
    """Load a dense layer from its folder.

    Args:
        folder: the folder with `config.json` and weights.
        module: the module, whose entry of `UNREAD` lists settings without effect.

    Raises:
        UserError: a file is missing or cannot be read, embfit does not support the layer, or the weights do not fit it.
    """
    weights = next((path for name in DENSE_WEIGHTS if (path := folder / name).is_file()), None)
    if weights is None or not (folder / "config.json").is_file():
        missing = "config.json" if weights else " or ".join(DENSE_WEIGHTS)
        raise UserError(f"{folder}: modules.json names this Dense module, but its {missing} is missing")
    read = ("in_features", "out_features", "bias", "activation_function", "use_residual")
    projection = Projection(read_known(folder / "config.json", read, module))
    try:
        if weights.suffix == ".safetensors":
            tensors = load_file(weights)
        else:  # the weights may have been saved on a GPU
            tensors = torch.load(weights, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        raise UserError(f"{weights}: cannot be read ({first_line(error)}); copy the model again") from error
    try:
        projection.load_state_dict(tensors)
    except RuntimeError as error:
        said = " ".join(str(error).split())  # PyTorch lists missing weights on separate lines
        raise UserError(f"{weights}: the weights do not fit its config.json: {said}") from error
    return projection


def _length(folder: Path, said: int | None) -> int | None:
    length = said or read_json(folder / "tokenizer_config.json").get("model_max_length")
    return int(length) if length and length < NO_LENGTH else None


def _pooling(path: Path) -> Pooling:
    flags = (*POOLING_FLAGS, *(f"pooling_mode_{name}" for name in OTHER_POOLINGS))
    config = read_known(path, ("include_prompt", "pooling_mode", *flags), "Pooling")
    if config.get("include_prompt") is False:
        raise UserError(f"{path}: pooling that leaves the prompt out (include_prompt: false) is not supported")
    chosen = [name for name in flags if config.get(name)]
    if "pooling_mode" in config:  # sentence-transformers 6 writes a single word
        chosen = [str(config["pooling_mode"])]
    if len(chosen) == 1:
        for flag, pooling in POOLING_FLAGS.items():
            if chosen[0] in (flag, pooling):
                return pooling
    raise UserError(
        f"{path}: the pooling {' + '.join(chosen) or 'none'} is not supported; {', '.join(POOLING_FLAGS.values())} are"
    )


def read_known(path: Path, read: tuple[str, ...], module: str | None = None) -> dict[str, Any]:
    """Read a file of settings, all of which embfit must know.

    Args:
        path: the file; a missing one has no settings.
        read: the keys that the caller applies.
        module: the module of the file, if files of several modules have the same name.

    Raises:
        UserError: the file has another key, with a value that may change what the model computes.
    """
    config: dict[str, Any] = read_json(path)
    check_keys(path, module or path.name, config, read)
    return config


def check_keys(path: Path, kind: str, config: Mapping[str, Any], read: tuple[str, ...]) -> None:
    """Refuse settings that embfit does not know.

    Args:
        path: the file of the settings.
        kind: the kind of module, whose entry of `UNREAD` lists settings without effect.
        config: the settings.
        read: the keys that the caller applies.

    Raises:
        UserError: there is another key, with a value that may change what the model computes.
    """
    unread = UNREAD[kind]
    for key, value in config.items():
        allowed = unread.get(key, EMPTY)
        if key not in read and allowed is not ANY and value not in allowed:
            raise UserError(
                f"{path}: embfit does not know what {key}: {json.dumps(value)} means to the model's vectors"
            )


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing file counts as empty.

    Raises:
        UserError: it is not JSON.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from error
