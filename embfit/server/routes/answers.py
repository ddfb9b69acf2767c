"""Shared by all routes: model names in requests, and fast JSON answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from embfit.model.encoder import Kind
from embfit.server.errors import Refusal
from embfit.server.live_version import LiveBundle

SUFFIXES: Mapping[str, Kind] = {"-query": "query", "-document": "document"}
QUERY_NAMES = ("query", "search_query", "retrieval.query")


def json_answer(value: Any) -> Response:
    """Answer with JSON, which may hold NumPy arrays."""
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def usage(tokens: int) -> dict[str, int]:
    """Return the number of tokens read, in the form of OpenAI's API."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def names(live: LiveBundle) -> list[str]:
    """Return the model names that requests may give for a version."""
    name = live.bundle.manifest.name
    return [name, *(f"{name}{suffix}" for suffix in SUFFIXES)]


def asked_kind(live: LiveBundle, model: str | None, input_type: str | None = None) -> Kind:
    """Return whether a request's texts are queries or documents, and check that it names this version.

    The default is documents, as most texts are; `input_type` or the model's name can say that they are queries.

    Raises:
        Refusal: the model does not exist, another version answers, or the name and the input type disagree.
    """
    said = None if input_type is None else _kind(input_type)
    if model is None:
        return said or "document"
    name, kind = _without_suffix(model, live)
    if kind is not None and said is not None and kind != said:
        raise Refusal(400, f"model={model} is for {kind}, and input_type={input_type}; leave one out", param="model")
    own, _, version = name.partition("@")
    manifest = live.bundle.manifest
    if own != manifest.name:
        raise Refusal(
            404,
            f"there is no model {model[:100]!r}; there are {', '.join(names(live))}",
            code="model_not_found",
            param="model",
        )
    if version and version != str(manifest.version):
        raise Refusal(
            412, f"model={model}: {live.label} answers; ask for that one, or for {manifest.name}", param="model"
        )
    return kind or said or "document"


def _without_suffix(model: str, live: LiveBundle) -> tuple[str, Kind | None]:
    """Remove the suffix `-query` or `-document`, unless it is a part of the bundle's own name."""
    for suffix, kind in SUFFIXES.items():
        name = model.removesuffix(suffix)
        if name != model and name.partition("@")[0] == live.bundle.manifest.name:
            return name, kind
    return model, None


def _kind(input_type: str) -> Kind:
    return "query" if input_type in QUERY_NAMES else "document"
