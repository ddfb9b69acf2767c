"""Reads the folder of a late-interaction model, in the layouts of PyLate, Stanford and sentence-transformers.

- PyLate: `config_sentence_transformers.json` has markers, lengths, expansion and skip list; `modules.json` lists the
  Transformer and one or several `pylate.models.Dense.Dense`.
- Stanford (`HF_ColBERT`): `artifact.metadata` has the settings, and the projection is `linear.weight` among the weights
  of the backbone.
- sentence-transformers 6 (`MultiVectorEncoder`): markers are prompts, lengths and expansion stand with the Transformer,
  and the skip list in a module of its own.

A setting that embfit does not know is refused with the name of its file, as in `embfit.model.folder`.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from embfit.errors import UserError
from embfit.model.folder import LIBRARY, TEXT_SETTINGS, check_keys, read_json, read_known, read_layer, text_settings
from embfit.model.projection import Projection
from embfit.model.settings import Expansion

SETTINGS = "config_sentence_transformers.json"
METADATA = "artifact.metadata"
STANFORD = "HF_ColBERT"
NATIVE = "MultiVectorEncoder"
PYLATE = "pylate.models."
PUNCTUATION = tuple(string.punctuation)
QUERY_LENGTH, DOCUMENT_LENGTH = 32, 180  # defaults of PyLate and Stanford


@dataclass(frozen=True)
class LateInteractionFolder:
    """The settings in the folder of a late-interaction model.

    Args:
        head: the projection's layers.
        query_marker: the token that marks a query; "" is none.
        document_marker: the token that marks a document.
        query_length: the most tokens of a query; None if the folder does not say.
        document_length: the most tokens of a document.
        expansion: whether queries are filled up with mask tokens.
        attend_to_expansion: whether other tokens attend to the mask tokens.
        skip: tokens of documents that give no vector.
        lower_case: whether to convert texts to lower case, even if the tokenizer does not.
    """

    head: tuple[Projection, ...]
    query_marker: str
    document_marker: str
    query_length: int | None
    document_length: int | None
    expansion: Expansion
    attend_to_expansion: bool
    skip: tuple[str, ...]
    lower_case: bool = False


def holds_late_interaction(folder: Path) -> bool:
    """Return whether a model's folder is that of a late-interaction model."""
    said = read_json(folder / SETTINGS)
    return (
        _is_stanford(folder)
        or said.get("model_type") in ("ColBERT", NATIVE)
        or str(said.get("similarity_fn_name")).lower() in ("maxsim", "meanmaxsim")
        or "query_prefix" in said
    )


def read_late_interaction(folder: Path) -> LateInteractionFolder:
    """Read the folder of a late-interaction model.

    Raises:
        UserError: a file is missing, or a module or a setting is unknown.
    """
    if _is_stanford(folder):
        return _stanford(folder)
    modules = _modules(folder)
    if any(name == "MultiVectorMask" for name, _ in modules):
        return _native(folder, modules)
    return _pylate(folder, modules)


def _is_stanford(folder: Path) -> bool:
    return STANFORD in (read_json(folder / "config.json").get("architectures") or ())


def _pylate(folder: Path, modules: Sequence[tuple[str, Path]]) -> LateInteractionFolder:
    path = folder / SETTINGS
    read = (
        "prompts",
        "query_prefix",
        "document_prefix",
        "query_length",
        "document_length",
        "do_query_expansion",
        "attend_to_expansion_tokens",
        "skiplist_words",
    )
    said = read_known(path, read, "late interaction")
    _refuse_prompts(path, said.get("prompts"))
    text = read_known(text_settings(folder), ("max_seq_length", "do_lower_case"), TEXT_SETTINGS)
    skip = said.get("skiplist_words")
    return LateInteractionFolder(
        _head(modules),
        said.get("query_prefix") or "",
        said.get("document_prefix") or "",
        said.get("query_length") or QUERY_LENGTH,
        said.get("document_length") or DOCUMENT_LENGTH,
        "none" if said.get("do_query_expansion") is False else "fixed",
        bool(said.get("attend_to_expansion_tokens")),
        PUNCTUATION if skip is None else tuple(skip),
        bool(text.get("do_lower_case")),
    )


def _stanford(folder: Path) -> LateInteractionFolder:
    said: Mapping[str, Any] = read_json(folder / METADATA)
    if said.get("similarity", "cosine") != "cosine":
        raise UserError(
            f"{folder / METADATA}: similarity: {said['similarity']!r} is not supported; embfit compares by cosine"
        )
    return LateInteractionFolder(
        (_stanford_layer(folder),),
        said.get("query_token_id") or "[unused0]",
        said.get("doc_token_id") or "[unused1]",
        said.get("query_maxlen") or QUERY_LENGTH,
        said.get("doc_maxlen") or DOCUMENT_LENGTH,
        "fixed",
        bool(said.get("attend_to_mask_tokens")),
        PUNCTUATION if said.get("mask_punctuation", True) else (),
    )


def _stanford_layer(folder: Path) -> Projection:
    """Return the projection in the file of the backbone's weights."""
    weight = _stanford_weight(folder)
    width, size = weight.shape
    layer = Projection({"in_features": size, "out_features": width, "bias": False, "activation_function": "Identity"})
    layer.load_state_dict({"linear.weight": weight})
    return layer


def _stanford_weight(folder: Path) -> Tensor:
    path = folder / "model.safetensors"
    if path.is_file():
        with safe_open(path, "pt") as file:
            if "linear.weight" in file.keys():  # noqa: SIM118  # it is no mapping
                found: Tensor = file.get_tensor("linear.weight")
                return found
    elif (folder / "pytorch_model.bin").is_file():
        path = folder / "pytorch_model.bin"
        weights: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if "linear.weight" in weights:
            return weights["linear.weight"]
    raise UserError(f"{path}: a {STANFORD} model has its projection here, as linear.weight, and there is none")


def _native(folder: Path, modules: Sequence[tuple[str, Path]]) -> LateInteractionFolder:
    if modules[-1][0] != "Normalize":
        raise UserError(f"{folder / 'modules.json'}: without Normalize at the end tokens' vectors keep their length")
    prompts = read_known(folder / SETTINGS, ("prompts",), "late interaction").get("prompts") or {}
    if unknown := [name for name in prompts if name not in ("query", "document") and prompts[name]]:
        raise UserError(f"{folder / SETTINGS}: embfit does not know what the prompt {unknown[0]!r} is for")
    path = text_settings(folder)
    read = ("max_seq_length", "do_lower_case", "query_length", "document_length", "query_expansion")
    text = read_known(path, read, TEXT_SETTINGS)
    expansion = text.get("query_expansion") or {}
    if expansion and (expansion.get("strategy") != "fixed" or expansion.get("token") is not None):
        raise UserError(f"{path}: the query_expansion {expansion} is not supported; strategy: fixed, token: null is")
    mask = next(place for name, place in modules if name == "MultiVectorMask")
    skip = read_known(mask / "config.json", ("skiplist_words",), "MultiVectorMask").get("skiplist_words")
    longest = text.get("max_seq_length")
    return LateInteractionFolder(
        _head(modules),
        prompts.get("query") or "",
        prompts.get("document") or "",
        expansion.get("length") or text.get("query_length") or longest,
        text.get("document_length") or longest,
        "fixed" if expansion else "none",
        bool(expansion.get("attend")),
        tuple(skip or ()),
        bool(text.get("do_lower_case")),
    )


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Return the names and folders of a model's modules, in the order in which they compute.

    Raises:
        UserError: there are none, or they are not those of a late-interaction model.
    """
    path = folder / "modules.json"
    modules = []
    for entry in read_json(path):
        check_keys(path, "modules.json", entry, ("type", "path"))
        kind = str(entry["type"])
        if not kind.startswith((LIBRARY, PYLATE)):
            raise UserError(f"{path}: the module {kind!r} is not supported in a late-interaction model")
        modules.append((kind.rsplit(".", 1)[-1], folder / str(entry["path"])))
    names = [name for name, _ in modules]
    behind = [name for name in names[1:] if name != "Dense"]
    if names[:1] != ["Transformer"] or "Dense" not in names or behind not in ([], ["MultiVectorMask", "Normalize"]):
        raise UserError(
            f"{path}: the order {', '.join(names) or 'of no module'} is not supported in a late-interaction model; "
            "Transformer comes first, then Dense, then MultiVectorMask and Normalize where they are written"
        )
    return modules


def _head(modules: Sequence[tuple[str, Path]]) -> tuple[Projection, ...]:
    for name, place in modules:
        if name == "Normalize":
            read_known(place / "config.json", (), "token Normalize")
    return tuple(read_layer(place, "token Dense") for name, place in modules if name == "Dense")


def _refuse_prompts(path: Path, prompts: Mapping[str, str] | None) -> None:
    if said := [name for name, text in (prompts or {}).items() if text]:
        raise UserError(
            f"{path}: the prompt {said[0]!r} is read by sentence-transformers and not by PyLate, so it is not clear "
            "what the model was trained with; put it in front of the texts, and remove it from this file"
        )
