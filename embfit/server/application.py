"""The ASGI application: the routes, one shape for all errors, and an OpenAPI schema that matches the real answers."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from embfit.server import schemas
from embfit.server.errors import TYPES, Refusal
from embfit.server.request import Call
from embfit.server.routes import embeddings, search, status
from embfit.server.service import Service
from embfit.server.transport import Transport
from embfit.version import __version__

ABOUT = "Embeddings, search and reranking by one version of a bundle; the header x-embfit-bundle says which."


def make_application(service: Service) -> FastAPI:
    """Return the ASGI application of a service."""
    app = FastAPI(title="embfit", version=__version__, description=ABOUT)
    _add_routes_that_compute(app, service)
    _add_routes_about_the_server(app, service)

    @app.exception_handler(RequestValidationError)
    def unfit(request: Request, error: RequestValidationError) -> Response:
        raise _first_error(error)

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        raise Refusal(error.status_code, _said(request, error), headers=error.headers) from error

    app.add_middleware(Transport, service=service)
    app.openapi = lambda: _schema(app)  # type: ignore[method-assign]  # FastAPI's way to change the schema
    return app


def _add_routes_that_compute(app: FastAPI, service: Service) -> None:
    @app.post("/v1/embeddings", **_answers(schemas.EmbeddingsAnswer, 400, 404, 412, 413, 429, 500, 503))
    @app.post("/embeddings", include_in_schema=False)
    async def embed(asked: schemas.EmbeddingsRequest, request: Request) -> Response:
        """Embed texts, as OpenAI's API does."""
        return await embeddings.embeddings(service, Call.of(request), asked)

    @app.post("/v1/search", **_answers(schemas.SearchAnswer, 400, 404, 412, 413, 429, 500, 503))
    async def find(asked: schemas.SearchRequest, request: Request) -> Response:
        """Find the best documents of a query, or of several."""
        return await search.search(service, Call.of(request), asked)

    @app.post("/v1/rerank", **_answers(schemas.RerankAnswer, 400, 404, 412, 413, 429, 500, 503))
    @app.post("/rerank", include_in_schema=False)
    async def rerank(asked: schemas.RerankRequest, request: Request) -> Response:
        """Order documents by how well they answer a query, as Jina's and Cohere's APIs do."""
        return await search.rerank(service, Call.of(request), asked)

    @app.post("/tokenize", **_answers(schemas.TokenizeAnswer, 400, 404, 412, 413))
    async def tokenize(asked: schemas.TokenizeRequest, request: Request) -> Response:
        """Show the tokens of texts, as the model reads them."""
        return await embeddings.tokenize(service, Call.of(request), asked)


def _add_routes_about_the_server(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """Return the search page."""
        return status.page()

    @app.get("/v1/models", **_answers(schemas.ModelsAnswer))
    async def models(request: Request) -> Response:
        """List the names that requests may give."""
        return status.models(Call.of(request))

    @app.get("/info", **_answers(dict[str, Any]))
    async def about(request: Request) -> Response:
        """Describe the version that answers, and the limits of requests."""
        return status.about(service, Call.of(request))

    @app.get("/health", **_answers(schemas.State, 503))
    async def health() -> Response:
        """Report that the process and the model's thread are alive."""
        return status.health(service)

    @app.get("/ready", **_answers(schemas.State, 503))
    async def ready() -> Response:
        """Report that the server accepts requests."""
        return status.ready(service)

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
    async def metrics() -> Response:
        """Return the metrics, as Prometheus reads them."""
        return status.metrics(service)


def _answers(answer: type[BaseModel] | Any, *refusals: int) -> dict[str, Any]:
    """Return the OpenAPI responses of a route: its answer, and its errors beyond those that every route may have."""
    errors = {code: {"model": schemas.ErrorAnswer, "description": TYPES[code]} for code in (401, 408, *refusals)}
    return {"responses": {200: {"model": answer}, **errors}, "response_model": None}


def _schema(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI schema, without the 422 error that FastAPI adds to every route: no route here returns it."""
    if not app.openapi_schema:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema


def _first_error(error: RequestValidationError) -> Refusal:
    """Return the refusal of an invalid body: the first error and its place."""
    first = error.errors()[0]
    place = [part for number, part in enumerate(first["loc"][1:]) if not number or isinstance(part, int)]
    param = ".".join(map(str, place)) or None  # without the names of the types that pydantic tried
    if first["type"] == "json_invalid":
        return Refusal(400, f"the body is not JSON: {first['ctx']['error']}", code="invalid_json")
    if len(first["loc"]) == 1 and first["type"] in ("missing", "model_attributes_type"):
        return Refusal(400, "the body is not a JSON object; send one, with content-type: application/json")
    message = str(first["msg"]).removeprefix("Value error, ")
    return Refusal(400, f"{param or 'the body'}: {message}", param=param)


def _said(request: Request, error: HTTPException) -> str:
    """Return the message for a request that matches no route."""
    if error.status_code == 404:
        return f"there is no route {request.url.path[:100]}; /docs lists the routes"
    if error.status_code == 405:
        return f"{request.url.path} does not accept {request.method}; /docs shows the methods"
    return "the body is not UTF-8, or not JSON" if error.status_code == 400 else str(error.detail)
