"""The `server` group: the server's address, the bundle that it serves, and its limits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from embfit.errors import ConfigError
from embfit.type_hints import Location

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServerSettings:
    """A server of one bundle.

    Args:
        workers: the number of processes that answer, each with its own model; a process that ends is replaced.
        host: the address to listen on; the default is reachable only from this machine.
        port: the port; 0 uses a free one, which the log names.
        api_key_env: the environment variable that holds the key that requests must send; None requires no key.
        serve: the pointer to follow, or the number of a version, which never changes.
        follow_seconds: how often to read the pointer.
        backend: the back end that embeds queries; None uses that of the bundle's documents, auto the fastest installed.
        reranker: a cross-encoder for `/v1/rerank` and reranked search; None compares vectors.
        beside: a pointer or a version that answers the requests that name it (`x-embfit-if-version`) and that the
            search page shows beside the main one.
        shadow: a pointer or a version that gets a share of the searches, for the metrics only.
        shadow_share: the share of searches that the shadow gets (0 to 1).
        token_budget: padded tokens in a batch; None chooses by the device.
        queue: the largest number of texts that wait for the model; further requests are refused (429).
        max_texts: the most texts in a request.
        max_characters: the most characters in a text.
        max_bytes: the most bytes in a request's body.
        max_k: the most documents that a search may ask for.
        search_threads: the number of searches of the index at a time.
        timeout: how many seconds a request may wait for the model before it is refused (503).
        receive_seconds: how many seconds a client has to send a request's body (408).
        keep_alive_seconds: seconds that a connection without a request stays open. A proxy in front must close its own
            earlier, or it sends requests into closed connections and answers 502.
        stop_seconds: how many seconds requests have to finish when the server stops.

    Raises:
        ConfigError: the queue has no room for the texts of one request.
    """

    workers: Annotated[int, Field(ge=1)] = 1
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    api_key_env: str | None = None
    serve: Literal["champion", "challenger", "previous"] | Annotated[int, Field(ge=1)] = "champion"
    follow_seconds: Annotated[float, Field(gt=0)] = 1.0
    backend: Literal["torch", "onnx", "openvino", "auto"] | None = None
    reranker: Annotated[str | None, Location()] = None
    beside: Literal["champion", "challenger", "previous"] | Annotated[int, Field(ge=1)] | None = None
    shadow: Literal["champion", "challenger", "previous"] | Annotated[int, Field(ge=1)] | None = None
    shadow_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    token_budget: Annotated[int, Field(ge=1)] | None = None
    queue: Annotated[int, Field(ge=1)] = 4096
    max_texts: Annotated[int, Field(ge=1)] = 2048
    max_characters: Annotated[int, Field(ge=1)] = 200_000
    max_bytes: Annotated[int, Field(ge=1)] = 16_000_000
    max_k: Annotated[int, Field(ge=1)] = 1000
    search_threads: Annotated[int, Field(ge=1)] = 2
    timeout: Annotated[float, Field(gt=0)] = 60.0
    receive_seconds: Annotated[float, Field(gt=0)] = 30.0
    keep_alive_seconds: Annotated[int, Field(ge=1)] = 75
    stop_seconds: Annotated[float, Field(gt=0)] = 30.0

    def __post_init__(self) -> None:
        if self.queue < self.max_texts:
            raise ConfigError(
                f"server.queue={self.queue} has no room for the {self.max_texts} texts of one request; raise it, or "
                "lower server.max_texts"
            )

    def api_key(self) -> str | None:
        """Return the key that requests must send; None if none is required.

        Raises:
            ConfigError: the variable is not set, or is empty.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ConfigError(
                f"server.api_key_env={self.api_key_env}: the environment variable is not set; set it to the key, or "
                "leave server.api_key_env out"
            )
        return key

    @property
    def reachable(self) -> bool:
        """Whether other machines can reach the server."""
        return self.host not in LOOPBACK
