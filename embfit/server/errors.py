"""Answers that refuse: one shape for every error, the one that OpenAI's clients read.

    {"error": {"message": "…", "type": "…", "param": "…", "code": "…"}}

A deterministic refusal is never 409 or 5xx, since clients send those again.
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
    """A request that gets an error for an answer.

    Args:
        status: of HTTP.
        message: value, limit and remedy.
        code: which error of its type it is; None is the type itself.
        param: the field of the request that it is about.
        reason: under which it is counted.
        headers: of the answer.
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
    """Return a text without halves of characters, which a request may hold and JSON cannot."""
    return text.encode(errors="replace").decode()


def too_large(what: str, found: int, limit: int, remedy: str, param: str | None = None) -> Refusal:
    """Refuse a request that is over a limit."""
    return Refusal(413, f"{what}: {found:,} exceeds {limit:,}; {remedy}", param=param, reason="too_long")


def overloaded(waiting: int, limit: int, seconds: float) -> Refusal:
    """Refuse a request since the queue is full; the answer says when there will be room."""
    wait = max(seconds, 0.05)
    return Refusal(
        429,
        f"{waiting:,} texts wait for the model, and server.queue={limit:,}; try again in {wait:.2g} s",
        reason="overloaded",
        headers={"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))},
    )
