"""One request to an OpenAI-compatible server: its answer within a time limit, or the reason why there is none."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from embfit.credentials import check_address, read_key
from embfit.errors import ConfigError, UserError
from embfit.http_requests import pause_asked

URL = "http://localhost:8000/v1"  # of a server, for messages
MOST_BYTES = 1 << 22  # of an answer: an endless one must not fill the memory
SHOWN = 300  # characters of an error answer


class UnreachableError(UserError):
    """No request can succeed: the address is wrong, or the certificate is not trusted."""


class LostError(Exception):
    """A request got no answer.

    Args:
        message: the reason.
        sent: whether the server may have received the request, and may charge for it.
    """

    def __init__(self, message: str, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True)
class ServerAnswer:
    """A server's answer, with the key removed from its text.

    Args:
        status: the HTTP status.
        text: the body.
        pause: the seconds to wait before the next request, from `Retry-After`; None if the server does not say.
    """

    status: int
    text: str
    pause: float | None

    @property
    def refusal(self) -> str:
        """The status and the beginning of the body, for messages."""
        import httpx2  # takes a sixth of a second to import

        body = " ".join(self.text.split())[:SHOWN]
        return f"{self.status} {httpx2.codes.get_reason_phrase(self.status)}".strip() + (f": {body}" if body else "")


class ApiClient:
    """Sends requests to one address; an asynchronous context manager.

    Args:
        address: the address of all requests.
        key: the server's key; None for a server without keys. No message of this class contains it.
        timeout: seconds that a request may take in total, including a slow answer.
        connections: the number of connections that are kept open.
        group: the configuration key of these settings, for messages.
    """

    def __init__(
        self, address: str, key: str | None, timeout: float, connections: int, group: str = "generator"
    ) -> None:
        import httpx2

        self.address, self.timeout, self.group = address, timeout, group
        self._key = key
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx2.AsyncClient(headers=headers, timeout=None, limits=limits, follow_redirects=False)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)

    async def post(self, body: Mapping[str, Any]) -> ServerAnswer:
        """Send a request, and return the server's answer with any status.

        Raises:
            LostError: there is no answer within the time limit.
            UnreachableError: the certificate is not trusted.
        """
        import httpx2

        try:
            async with (
                asyncio.timeout(self.timeout),
                self._client.stream("POST", self.address, json=dict(body)) as answer,
            ):
                read = bytearray()
                async for part in answer.aiter_bytes():
                    read += part
                    if len(read) > MOST_BYTES:
                        raise LostError(f"the answer is longer than {MOST_BYTES:,} bytes", sent=True)
                text = self._without_key(read.decode("utf-8", errors="replace"))
                return ServerAnswer(answer.status_code, text, pause_asked(answer.headers.get("Retry-After", "")))
        except TimeoutError as error:
            raise LostError(f"no answer within {self.timeout:g} s ({self.group}.timeout)", sent=True) from error
        except httpx2.ConnectError as error:
            if (cause := _certificate(error)) is not None:
                raise UnreachableError(
                    f"{self.address}: its certificate is not trusted ({cause}); set SSL_CERT_FILE to a file with yours"
                ) from error
            raise LostError(f"cannot connect ({error})", sent=False) from error
        except httpx2.DecodingError as error:
            raise LostError(f"the answer cannot be decompressed ({error})", sent=True) from error
        except httpx2.HTTPError as error:
            raise LostError(f"the connection was lost ({error or type(error).__name__})", sent=True) from error

    def _without_key(self, text: str) -> str:
        """Remove the key from a text: some servers repeat it in an error answer."""
        return text if self._key is None else text.replace(self._key, "[key]")


def check_server(url: str | None, group: str = "generator") -> str:
    """Return the address of a language model's server without a final slash.

    Args:
        url: the address.
        group: the configuration key of its settings, for messages.

    Raises:
        ConfigError: no address is named, it is invalid, or it contains a secret.
    """
    if url is None:
        raise ConfigError(f"{group}.url is not set; give the server's address up to the version, such as {URL}")
    return check_address(url, f"{group}.url", URL)


def header_key(variable: str | None, group: str = "generator") -> str | None:
    """Return the key in an environment variable; None if no variable is named.

    Raises:
        ConfigError: the variable is not set, or its value is not allowed in a header.
    """
    key = read_key(variable, f"{group}.key_variable")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the key in the environment variable {variable} has characters that are not allowed in a header; it takes "
            "printable ASCII"
        )
    return key


def _certificate(error: BaseException) -> str | None:
    """Return what is wrong with a server's certificate; None if the error has another cause."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen.verify_message
        seen = seen.__cause__ or seen.__context__
    return "certificate verify failed" if "CERTIFICATE_VERIFY_FAILED" in str(error) else None
