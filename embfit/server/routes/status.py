"""The server's description, health and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from embfit.server.errors import Refusal
from embfit.server.request import Call
from embfit.server.routes.answers import json_answer, names
from embfit.server.service import Service
from embfit.version import __version__

PAGE = (Path(__file__).parents[1] / "page.html").read_bytes()
POLICY = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


def page() -> Response:
    """Return the search page: one file that sends requests only to this server."""
    return Response(PAGE, media_type="text/html", headers={"content-security-policy": POLICY})


def health(service: Service) -> Response:
    """Report that the process and the model's thread are alive; otherwise the server should be restarted."""
    if not service.batcher.alive:
        raise Refusal(503, "the model's thread has ended; start the server again", code="not_alive", reason="other")
    return json_answer({"status": "ok"})


def ready(service: Service) -> Response:
    """Report that the server accepts requests: a version is verified and warm, and the server is not stopping."""
    if service.stopping or not service.batcher.alive:
        raise Refusal(503, "the server is stopping" if service.stopping else "it has failed", reason="other")
    return json_answer({"status": "ready"})


def metrics(service: Service) -> Response:
    """Return the metrics, as Prometheus reads them."""
    service.metrics.queue_size.set(service.batcher.waiting)
    return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def models(call: Call) -> Response:
    """List the model names that requests may give."""
    return json_answer(
        {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": int(call.live.loaded), "owned_by": "embfit"}
                for name in names(call.live)
            ],
        }
    )


def about(service: Service, call: Call) -> Response:
    """Describe the version that answers, its model, index and documents, and the limits of requests."""
    bundle, settings = call.live.bundle, service.settings
    manifest = bundle.manifest
    found: dict[str, Any] = {
        "bundle": manifest.label,
        "name": manifest.name,
        "version": manifest.version,
        "created": manifest.created,
        "follows": settings.serve,
        "model": {
            "source": manifest.model.source,
            "width": manifest.model.width,
            "dimensions": sorted({*manifest.model.dims, manifest.model.width}),
            "max_length": manifest.model.max_length,
            "late_interaction": not bundle.encoder.single,
            "query_fingerprint": manifest.model.query,
            "document_fingerprint": manifest.model.document,
            "document_precision": manifest.model.precision,
            "query_precision": bundle.encoder.computes_in,
            "document_back_end": manifest.model.back_end,
            "query_back_end": bundle.encoder.back_end,
            "probe_distance": bundle.probe_distance,
        },
        "bridge": dict(manifest.bridge) or None,
        "index": {"kind": manifest.index.kind, "recall": manifest.index.recall},
        "documents": {
            "count": manifest.documents.count,
            "texts": manifest.documents.texts,
            "columns": list(manifest.documents.columns),
            "words": manifest.words is not None,
        },
        "quality": None if manifest.quality is None else dict(manifest.quality.metrics),
        "reranker": settings.reranker,
        "beside": None if service.beside is None else service.beside.label,
        "shadow": None if service.shadow is None else service.shadow.label,
        "limits": {
            name: getattr(settings, name) for name in ("max_texts", "max_characters", "max_bytes", "max_k", "queue")
        },
        "embfit": __version__,
    }
    return json_answer(found)
