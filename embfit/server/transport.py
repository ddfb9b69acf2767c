"""Around every route: check the API key and the body's size and speed, choose the version, and add headers.

It is plain ASGI middleware, because the frameworks' middleware classes hide a disconnected client from the route.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embfit.server.errors import Refusal, too_large
from embfit.server.request import KEY, Call
from embfit.server.service import Service

log = logging.getLogger(__name__)

OPEN = ("/", "/health", "/ready")  # for load balancers and browsers; they reveal nothing about the documents
REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
CLIENT_GONE = 499  # nginx's status for a client that disconnected; nobody reads this answer


class Transport:
    """ASGI middleware around the routes that makes a `Call` for each request.

    Args:
        app: the routes.
        service: the service that the routes use.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service
        self._key = service.api_key.encode() if service.api_key is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = _headers(scope["headers"])
        call = Call(_request_id(headers), self.service.live.acquire())
        scope[KEY] = call
        status = CLIENT_GONE

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                ours = call.headers(time.perf_counter() - started)
                message["headers"] = [
                    *message.get("headers", ()),
                    *((name.encode(), value.encode("latin-1", "replace")) for name, value in ours.items()),
                ]
            await send(message)

        watch: asyncio.Task[None] | None = None
        try:
            self._check_key(scope["path"], headers)
            call.ask(self.service.answering(headers.get("x-embfit-if-version")))
            body = await self._read(headers, receive)
            watch = asyncio.create_task(_watch(receive, call))
            await self.app(scope, _replay(body, call), answer)
        except Refusal as refusal:
            await self._refuse(refusal, scope, receive, answer)
        except _ClientGone:
            self.service.metrics.failures.labels("cancelled").inc()
        except Exception:
            log.exception("request %s to %s failed", call.id, scope["path"])
            unexpected = Refusal(500, f"the server failed; its log has request {call.id}", reason="other")
            if status == CLIENT_GONE:  # no answer has been started
                await self._refuse(unexpected, scope, receive, answer)
        finally:
            if watch is not None:
                watch.cancel()
            call.live.release()
            self._measure(scope, status, time.perf_counter() - started)

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        self.service.metrics.failures.labels(refusal.reason).inc()
        with suppress(OSError):
            await refusal.response()(scope, receive, send)

    def _check_key(self, path: str, headers: dict[str, str]) -> None:
        if self._key is None or path in OPEN:
            return
        given = headers.get("authorization", "")
        scheme, _, key = given.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode("latin-1", "replace"), self._key):
            raise Refusal(
                401,
                "the key is missing or wrong; send the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    async def _read(self, headers: dict[str, str], receive: Receive) -> bytes:
        """Return the body; the part above the limit is read and dropped, so that the client can read the answer."""
        limit = self.service.settings.max_bytes
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.service.settings.receive_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientGone
                    part = message.get("body", b"")
                    size += len(part)
                    if size <= limit:
                        parts.append(part)
                    else:
                        parts.clear()
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            raise Refusal(
                408,
                f"the body did not come within {self.service.settings.receive_seconds:g} s "
                "(server.receive_seconds); send it faster, or in parts",
                reason="deadline",
                headers={"connection": "close"},
            ) from error
        if size > limit:
            raise too_large("bytes of the body", size, limit, "send less at a time, or raise server.max_bytes")
        return b"".join(parts)

    def _measure(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self.service.metrics.requests.labels(route, str(status)).inc()
        self.service.metrics.request_seconds.labels(route).observe(seconds)


class _ClientGone(Exception):  # noqa: N818  # nothing went wrong
    """The client disconnected before it had sent the whole request."""


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def _request_id(headers: dict[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


async def _watch(receive: Receive, call: Call) -> None:
    """Set the call's `gone` when its client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    if not call.gone.done():
        call.gone.set_result(None)


def _replay(body: bytes, call: Call) -> Receive:
    """Return an ASGI `receive` that yields the body that was read, and then the client's disconnection."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.shield(call.gone)
        return {"type": "http.disconnect"}

    return receive
