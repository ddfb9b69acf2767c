"""One request: the version that answers it, whether its client is still there, and what it took."""

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
        id: names it in the answer and the log.
        live: the version that answers it.
        gone: is done when the client has gone.
        tokens: read for it.
        truncated: texts that were longer than the model reads.
        queue_seconds: that it waited for the model.
        inference_seconds: of the batches that it was in.
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
        """Return the call that a request is."""
        found = request.scope[KEY]
        assert isinstance(found, Call)
        return found

    def ask(self, live: LiveBundle) -> None:
        """Let another version answer; called before anything was asked of the first one."""
        before, self.live = self.live, live.acquire()
        before.release()

    def headers(self, total_seconds: float) -> dict[str, str]:
        """Return the headers that every answer has; times are in milliseconds."""
        return {
            "x-request-id": self.id,
            "x-embfit-bundle": self.live.label,
            "x-compute-tokens": str(self.tokens),
            "x-queue-time": f"{self.queue_seconds * 1000:.1f}",
            "x-inference-time": f"{self.inference_seconds * 1000:.1f}",
            "x-total-time": f"{total_seconds * 1000:.1f}",
        } | ({"x-embfit-truncated": str(self.truncated)} if self.truncated else {})
