"""Embeddings from a server with OpenAI's `/v1/embeddings`, and how far they are from a model's own."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import numpy as np

from embfit.credentials import read_key
from embfit.errors import UserError
from embfit.http_requests import BUSY, BusyError, answers, is_address, pause_asked
from embfit.progress import progress
from embfit.vectors import unit_length


@dataclass(frozen=True)
class Server:
    """A server of embeddings.

    Args:
        url: its address up to the version, such as `http://localhost:8080/v1`.
        model: the model's name on the server.
        key_variable: the environment variable that holds its key, if it requires one.
        batch: texts in one request.
        timeout: seconds to wait for an answer.
        in_flight: requests sent concurrently.
    """

    url: str
    model: str = "embfit"
    key_variable: str | None = None
    batch: int = 32
    timeout: float = 60.0
    in_flight: int = 4

    def encode(self, texts: Iterable[str], total: int, label: str) -> np.ndarray:
        """Embed texts: [N, D] float32, in the order given.

        Raises:
            UserError: the server cannot be reached, rejects a request, or returns a malformed answer.
        """
        parts = dict(self.encode_batches(texts, total, label))
        if len(widths := {part.shape[1] for part in parts.values()}) > 1:
            raise UserError(
                f"{self._address} returned vectors of {' and of '.join(map(str, sorted(widths)))} dimensions, which "
                "one model does not; check what the server runs"
            )
        return np.concatenate([parts[first] for first in sorted(parts)]) if parts else np.empty((0, 0), np.float32)

    def encode_batches(self, texts: Iterable[str], total: int, label: str) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the position of a request's first text and its vectors ([n, D] float32), as answers arrive.

        Raises:
            UserError: as `encode`, after the answers to requests already sent have been yielded.
        """
        with progress(label, total, "texts") as advance:
            for first, vectors in answers(self._embed, texts, self.batch, self.in_flight):
                yield first, vectors
                advance(len(vectors))

    @property
    def _address(self) -> str:
        return f"{self.url.rstrip('/')}/embeddings"

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        answer = self._answer(self._request({"model": self.model, "input": list(texts), "encoding_format": "float"}))
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self._address}: its answer is not that of /v1/embeddings ({error!r})") from error
        if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.size:
            raise UserError(f"{self._address}: {len(texts)} texts gave an answer of shape {vectors.shape}")
        if (indexes := [row["index"] for row in rows]) != list(range(len(texts))):
            raise UserError(
                f"{self._address}: the vectors of its answer are numbered {indexes[0]} to {indexes[-1]}, and not each "
                f"of 0 to {len(texts) - 1} once"
            )
        if not np.isfinite(vectors).all():
            raise UserError(f"{self._address}: a vector of its answer is not finite")
        if not vectors.any(axis=1).all():
            raise UserError(f"{self._address}: a vector of its answer is all zeros")
        return vectors

    def _request(self, body: dict[str, Any]) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if self.key_variable is not None:
            headers["Authorization"] = f"Bearer {read_key(self.key_variable, 'key_variable')}"
        if not is_address(self._address):
            raise UserError(f"{self.url!r} is not the address of a server, such as http://localhost:8080/v1")
        return urllib.request.Request(self._address, json.dumps(body).encode(), headers)

    def _answer(self, request: urllib.request.Request) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            message = f"{self._address} answers {error.code} {error.reason}: {_error_text(error)}"
            raise (
                BusyError(message, pause_asked(error.headers.get("Retry-After", "")))
                if error.code in BUSY
                else UserError(message)
            ) from error
        except (urllib.error.URLError, TimeoutError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                raise BusyError(
                    f"{self._address} did not answer within {self.timeout:g} s; raise the setting timeout, or lower "
                    "batch"
                ) from error
            raise BusyError(f"{self._address} cannot be reached ({reason}); is the server running?") from error
        except ValueError as error:
            raise UserError(f"{self._address}: its answer is not JSON ({error})") from error


def _error_text(answer: urllib.error.HTTPError) -> str:
    """Return the beginning of an error answer's text, or a note if the connection breaks while it is read."""
    try:
        return answer.read(300).decode(errors="replace").strip()
    except (OSError, HTTPException):
        return "(the rest of its answer did not arrive)"


@dataclass(frozen=True)
class Drift:
    """How far served vectors are from a model's own, over a sample of texts.

    Args:
        texts: how many texts were compared.
        mean: the mean over the texts, in the measure of `measure_drift`.
        most: the largest over the texts.
    """

    texts: int
    mean: float
    most: float


def measure_drift(served: np.ndarray, own: np.ndarray, lengths: bool = False) -> Drift:
    """Compare vectors of the same texts by 1 - cosine.

    Args:
        served: [N, D] floats.
        own: [N, D] floats.
        lengths: compare lengths, too: half the squared distance divided by the squared length of one's own vector. For
            two vectors of equal length this is 1 - cosine.

    Raises:
        ValueError: they differ in shape.
    """
    if served.shape != own.shape:
        raise ValueError(f"served vectors have {served.shape[1]} dimensions, the model's own {own.shape[1]}")
    served, own = served.astype(np.float64), own.astype(np.float64)
    units = np.linalg.norm(own, axis=1, keepdims=True)
    if not lengths:
        served, own, units = unit_length(served), unit_length(own), np.ones_like(units)
    apart = ((served - own) ** 2).sum(axis=1) / 2 / np.maximum(units[:, 0], np.finfo(np.float64).tiny ** 0.5) ** 2
    return Drift(len(own), float(apart.mean()), float(apart.max()))
