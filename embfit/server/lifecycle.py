"""The life of a server process: listen, answer, and stop only after all accepted requests are answered."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from embfit.errors import ConfigError
from embfit.server.application import make_application
from embfit.server.garbage import frozen_objects
from embfit.server.service import Service
from embfit.server.settings import ServerSettings

log = logging.getLogger(__name__)

BACKLOG = 2048
SWEPT_EVERY = 1.0  # seconds
BEAT_SECONDS = 5


class Server(uvicorn.Server):
    """uvicorn's server, changed so that a process that receives SIGTERM ends with exit code 0.

    uvicorn (0.54) raises the signal again after it has stopped, so the process would end by that signal.

    Args:
        config: uvicorn's configuration.
        announce: is called once the server answers requests and handles signals.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer requests, and announce it."""
        await super().startup(sockets)
        self._announce()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM; a second SIGINT does not wait for requests."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(settings: ServerSettings) -> socket.socket:
    """Bind a socket to the server's address.

    Raises:
        ConfigError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"server.host={settings.host}, server.port={settings.port}: {error.strerror or error}; choose another one "
            "(server.port=0 takes a free port)"
        ) from error
    listening.setblocking(False)
    return listening


def url(listening: socket.socket) -> str:
    """Return the URL of an address."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(
    service: Service,
    listening: socket.socket,
    announce: Callable[[], None] | None = None,
    beat: Callable[[], Awaitable[None]] | None = None,
) -> Server:
    """Return the HTTP server of a service on an address.

    Args:
        service: answers the requests.
        listening: the bound socket.
        announce: is called once the server answers requests, after the log line.
        beat: is called every `BEAT_SECONDS` while the event loop works.
    """
    address = url(listening)

    def answers() -> None:
        log.info("%s answers at %s (guide: %s/docs)", service.live.label, address, address)
        if announce is not None:
            announce()

    config = uvicorn.Config(
        make_application(service),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        callback_notify=beat,
        timeout_notify=BEAT_SECONDS,
        timeout_keep_alive=service.settings.keep_alive_seconds,
        timeout_graceful_shutdown=max(1, round(service.settings.stop_seconds)),
    )
    return Server(config, answers)


def run(service: Service, server: Server, listening: socket.socket) -> None:
    """Answer requests until the server receives a signal to stop; then finish the accepted ones."""
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_answer(service, server, listening))


async def _answer(service: Service, server: Server, listening: socket.socket) -> None:
    with frozen_objects():
        service.start()
        sweeping = asyncio.create_task(_close_stalled(server, service.settings.receive_seconds))
        try:
            await server.serve(sockets=[listening])
        finally:
            sweeping.cancel()
            await asyncio.to_thread(service.close)


async def _close_stalled(server: Server, seconds: float) -> None:
    """Close connections whose request head does not arrive in time; uvicorn would wait for it without a limit."""
    since: dict[Any, float] = {}
    while True:
        now = time.monotonic()
        unfinished = {found for found in server.server_state.connections if _awaits_head(found)}
        since = {connection: since.get(connection, now) for connection in unfinished}
        for connection, began in since.items():
            if now - began > seconds and connection.transport is not None:
                connection.transport.close()
        await asyncio.sleep(min(SWEPT_EVERY, seconds))


def _awaits_head(connection: Any) -> bool:
    """Return whether a connection has sent a part, but not all, of a request's head."""
    cycle = getattr(connection, "cycle", None)
    between_requests = connection.timeout_keep_alive_task is not None  # uvicorn closes the others
    return (cycle is None or bool(cycle.response_complete)) and not between_requests
