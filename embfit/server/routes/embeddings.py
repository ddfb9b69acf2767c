"""`/v1/embeddings`, compatible with OpenAI's clients, and `/tokenize`."""

from __future__ import annotations

import base64

import numpy as np
from starlette.responses import Response

from embfit.server.errors import Refusal
from embfit.server.live_version import LiveBundle
from embfit.server.request import Call
from embfit.server.routes.answers import asked_kind, json_answer, usage
from embfit.server.schemas import EmbeddingsRequest, TokenizeRequest, listed
from embfit.server.service import Service
from embfit.tokens import Tokens


async def embeddings(service: Service, call: Call, asked: EmbeddingsRequest) -> Response:
    """Embed texts."""
    kind = asked_kind(call.live, asked.model, asked.input_type)
    dimensions = _dimensions(call.live, asked.dimensions)
    texts = listed(asked.input)
    service.check_texts(texts, "input")
    if not call.live.bundle.encoder.single:
        raise Refusal(
            400,
            f"{call.live.label} gives several vectors for each text, which this answer has no room for; ask "
            "/v1/search or /v1/rerank",
            param="model",
        )
    vectors = (await service.embed(call, texts, kind, asked.truncate)).vectors
    rows = vectors.cut(dimensions).flat()
    data = [
        {"object": "embedding", "index": place, "embedding": _encoded(row, asked.encoding_format)}
        for place, row in enumerate(rows)
    ]
    return json_answer(
        {
            "object": "list",
            "model": call.live.label,
            "input_type": kind,
            "data": data,
            "usage": usage(call.tokens),
        }
    )


async def tokenize(service: Service, call: Call, asked: TokenizeRequest) -> Response:
    """Show the tokens of texts, as the model reads them."""
    kind = asked_kind(call.live, asked.model, asked.input_type)
    texts = listed(asked.input)
    service.check_texts(texts, "input")
    tokens = await service.tokenize(call, texts, kind)
    return json_answer(
        {
            "model": call.live.label,
            "input_type": kind,
            "max_length": call.live.bundle.encoder.max_length,
            "data": [_tokenized(tokens, place) for place in range(len(tokens))],
        }
    )


def _tokenized(tokens: Tokens, place: int) -> dict[str, object]:
    ids = tokens.ids[tokens.starts[place] : tokens.starts[place + 1]]
    return {"index": place, "tokens": ids, "truncated": bool(tokens.truncated[place])}


def _encoded(vector: np.ndarray, encoding: str) -> np.ndarray | str:
    """Return a vector as numbers, or in the base64 form of OpenAI's clients: float32, little-endian."""
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return np.ascontiguousarray(vector, np.float32)


def _dimensions(live: LiveBundle, asked: int | None) -> int:
    """Return the number of dimensions to keep.

    Raises:
        Refusal: the model was not trained for this number.
    """
    model = live.bundle.manifest.model
    known = sorted({*model.dims, model.width})
    if asked is not None and asked not in known:
        raise Refusal(
            400,
            f"dimensions={asked}: {live.label} was trained for {', '.join(map(str, known))} dimensions; ask for one of "
            "these (loss=mrl trains for several)",
            param="dimensions",
        )
    return asked or model.width
