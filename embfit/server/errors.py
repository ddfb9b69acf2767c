"""Error answers, all in the shape that OpenAI's clients read.

    {"error": {"message": "…", "type": "…", "param": "…", "code": "…"}}

A deterministic error never has status 409 or 5xx, because clients repeat such requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import orjson
from starlette.responses import Response

TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    412: "version_mismatch",
    413: "request_too_large",
    429: "overloaded",
    500: "server_error",
    503: "not_ready",
}

Reason: TypeAlias = Literal["validation", "too_long", "overloaded", "deadline", "cancelled", "inference", "other"]
"""Why a request failed, as the metrics count it."""


class Refusal(Exception):  # noqa: N818  # an answer, not a failure of the server
    """An error that the client gets as its answer.

    Args:
        status: the HTTP status.
        message: the value, the limit and the remedy.
        code: a more specific name than the error's type; None uses the type.
        param: the field of the request that causes the error.
        reason: the label under which the metrics count it.
        headers: additional headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        reason: Reason = "validation",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.reason: Reason = reason
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the answer."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error = {"message": _readable(self.message), "type": kind, "param": self.param and _readable(self.param)}
        error["code"] = self.code or kind
        return Response(orjson.dumps({"error": error}), self.status, self.headers, "application/json")


def _readable(text: str) -> str:
    """Replace lone surrogates, which a request may contain and an answer in UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def too_large(what: str, found: int, limit: int, remedy: str, param: str | None = None) -> Refusal:
    """Return the refusal of a request that exceeds a limit (413)."""
    return Refusal(413, f"{what}: {found:,} exceeds {limit:,}; {remedy}", param=param, reason="too_long")


def overloaded(waiting: int, limit: int, seconds: float) -> Refusal:
    """Return the refusal of a request because the queue is full (429); its headers say when to try again."""
    wait = max(seconds, 0.05)
    return Refusal(
        429,
        f"{waiting:,} texts wait for the model, and server.queue={limit:,}; try again in {wait:.2g} s",
        reason="overloaded",
        headers={"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))},
    )
