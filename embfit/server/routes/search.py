"""`/v1/search` and `/v1/rerank`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from starlette.responses import Response

from embfit.bundle import Hit
from embfit.server.errors import Refusal, too_large
from embfit.server.matching import check_matching, matched_words
from embfit.server.request import Call
from embfit.server.routes.answers import asked_kind, json_answer, usage
from embfit.server.schemas import RerankRequest, SearchRequest, listed
from embfit.server.service import Service


async def search(service: Service, call: Call, asked: SearchRequest) -> Response:
    """Find each query's best documents."""
    asked_kind(call.live, asked.model)
    queries = listed(asked.query)
    service.check_texts(queries, "query")
    for param, depth in (("k", asked.k), ("rerank", asked.rerank or 0)):
        if depth > service.settings.max_k:
            raise too_large(param, depth, service.settings.max_k, "ask for fewer, or raise server.max_k", param)
    if asked.rerank is not None:
        _check_reranking(service, call)
    if asked.matches:
        check_matching(call)
    found = await service.search(call, queries, max(asked.k, asked.rerank or 0), asked.mode, asked.where)
    if asked.rerank is not None:
        found = [await _reranked(service, call, *pair, asked.rerank) for pair in zip(queries, found, strict=True)]
    documents = [[_document(hit, asked.texts) for hit in hits[: asked.k]] for hits in found]
    if asked.matches:
        for query, hits, shown in zip(queries, found, documents, strict=True):
            matched = await matched_words(service, call, query, hits[: asked.k])
            for document, words in zip(shown, matched, strict=True):
                document["matched"] = words
    return json_answer(
        {
            "object": "list",
            "model": call.live.label,
            "mode": asked.mode,
            "data": [
                {"object": "search_result", "index": place, "documents": shown} for place, shown in enumerate(documents)
            ],
            "usage": usage(call.tokens),
        }
    )


async def rerank(service: Service, call: Call, asked: RerankRequest) -> Response:
    """Order documents by how well they answer a query."""
    asked_kind(call.live, asked.model)
    documents = [text if isinstance(text, str) else text.text for text in asked.documents]
    service.check_texts([asked.query], "query")
    service.check_texts(documents, "documents")
    scores = await service.score(call, asked.query, documents)
    if service.ranker is not None and not asked.raw_scores:
        scores = _sigmoid(scores)
    order = np.argsort(-scores, kind="stable")[: asked.top_n].tolist()
    return json_answer(
        {
            "id": call.id,
            "model": call.live.label if service.settings.reranker is None else service.settings.reranker,
            "results": [
                {"index": place, "relevance_score": float(scores[place])}
                | ({"document": {"text": documents[place]}} if asked.return_documents else {})
                for place in order
            ],
            "usage": usage(call.tokens),
        }
    )


def _check_reranking(service: Service, call: Call) -> None:
    """Check that the server has a reranker and the version has texts.

    Raises:
        Refusal: one of them is missing.
    """
    if service.ranker is None:
        raise Refusal(400, "there is no reranker here; leave rerank out, or set server.reranker", param="rerank")
    if not call.live.bundle.manifest.documents.texts:
        raise Refusal(
            400,
            f"{call.live.label} keeps no texts, which a reranker reads; leave rerank out, or make a version with "
            "bundle.texts=true",
            param="rerank",
        )


async def _reranked(service: Service, call: Call, query: str, hits: Sequence[Hit], depth: int) -> list[Hit]:
    """Rerank the first documents by the reranker's scores; the answer has only these."""
    first = hits[:depth]
    if not first:
        return []
    texts = list(call.live.bundle.searcher.documents.document_texts([hit.row for hit in first]))
    scores = _sigmoid(await service.score(call, query, texts))
    order = np.argsort(-scores, kind="stable").tolist()
    return [replace(first[place], score=float(scores[place])) for place in order]


def _document(hit: Hit, texts: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"id": hit.id, "score": hit.score, "metadata": dict(hit.metadata)}
    return found | ({"title": hit.title, "text": hit.text} if texts else {})


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    """Map a cross-encoder's scores to values between 0 and 1, as clients expect."""
    probabilities: np.ndarray = 1 / (1 + np.exp(-scores.astype(np.float64)))
    return probabilities
