"""The state of one request: the version that answers it, whether its client is connected, and its cost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.requests import Request

from embfit.server.live_version import LiveBundle

KEY = "embfit.call"


@dataclass(eq=False)
class Call:
    """A request that is being answered.

    Args:
        id: identifies the request in the answer and in the log.
        live: the version that answers it.
        gone: is done when the client has disconnected.
        tokens: the number of tokens that the model read.
        truncated: the number of texts that were longer than the model's limit.
        queue_seconds: how long it waited for the model.
        inference_seconds: how long its batches took.
    """

    id: str
    live: LiveBundle
    gone: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    tokens: int = 0
    truncated: int = 0
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0

    @staticmethod
    def of(request: Request) -> Call:
        """Return the `Call` of a Starlette request."""
        found = request.scope[KEY]
        assert isinstance(found, Call)
        return found

    def ask(self, live: LiveBundle) -> None:
        """Switch to another version, before the first one has computed anything."""
        before, self.live = self.live, live.acquire()
        before.release()

    def headers(self, total_seconds: float) -> dict[str, str]:
        """Return the headers of every answer; times are in milliseconds."""
        return {
            "x-request-id": self.id,
            "x-embfit-bundle": self.live.label,
            "x-compute-tokens": str(self.tokens),
            "x-queue-time": f"{self.queue_seconds * 1000:.1f}",
            "x-inference-time": f"{self.inference_seconds * 1000:.1f}",
            "x-total-time": f"{total_seconds * 1000:.1f}",
        } | ({"x-embfit-truncated": str(self.truncated)} if self.truncated else {})
