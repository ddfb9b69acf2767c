"""Embeddings from a server that speaks OpenAI's `/v1/embeddings`, and how far they are from a model's own."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from embfit.errors import UserError
from embfit.progress import progress


@dataclass(frozen=True)
class Server:
    """A server of embeddings.

    Args:
        url: up to the version, such as `http://localhost:8080/v1`.
        model: the name that it knows the model by.
        key_variable: the environment variable that holds its key, if it wants one.
        batch: texts sent at once.
        timeout: seconds to wait for an answer.
    """

    url: str
    model: str = "embfit"
    key_variable: str | None = None
    batch: int = 32
    timeout: float = 60.0

    def encode(self, texts: Iterable[str], total: int, label: str) -> np.ndarray:
        """Embed texts: [N, D] float32, in the order given.

        Raises:
            UserError: it cannot be reached, refuses, or does not answer as it should.
        """
        parts: list[np.ndarray] = []
        remaining = iter(texts)
        with progress(label, total, "texts") as advance:
            while batch := list(islice(remaining, self.batch)):
                part = self._embed(batch)
                if parts and part.shape[1] != parts[0].shape[1]:
                    raise UserError(f"{self._address}: vectors of {parts[0].shape[1]} and {part.shape[1]} dimensions")
                parts.append(part)
                advance(len(batch))
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    @property
    def _address(self) -> str:
        return f"{self.url.rstrip('/')}/embeddings"

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        answer = self._post({"model": self.model, "input": list(texts), "encoding_format": "float"})
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self._address}: its answer is not that of /v1/embeddings ({error!r})") from error
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise UserError(f"{self._address}: {len(texts)} texts gave an answer of shape {vectors.shape}")
        return vectors

    def _post(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.key_variable is not None:
            if self.key_variable not in os.environ:
                raise UserError(f"the server's key is not set: put it in the environment variable {self.key_variable}")
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        if not self._address.startswith(("http://", "https://")):
            raise UserError(f"{self.url!r} is no address of a server; it begins with http:// or https://")
        request = urllib.request.Request(self._address, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read(300).decode(errors="replace").strip()
            raise UserError(f"{self._address} answers {error.code} {error.reason}: {said}") from error
        except (urllib.error.URLError, TimeoutError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(f"{self._address} cannot be reached ({reason}); is the server running?") from error
        except ValueError as error:
            raise UserError(f"{self._address}: its answer is no JSON ({error})") from error


@dataclass(frozen=True)
class Drift:
    """How far served vectors are from a model's own, over a sample of texts.

    Args:
        texts: compared.
        mean: of 1 - cosine.
        most: of 1 - cosine.
    """

    texts: int
    mean: float
    most: float


def measure_drift(served: np.ndarray, own: np.ndarray) -> Drift:
    """Compare vectors of the same texts by 1 - cosine, so that lengths do not count.

    Args:
        served: [N, D] floats.
        own: [N, D] floats.

    Raises:
        ValueError: they differ in shape.
    """
    if served.shape != own.shape:
        raise ValueError(f"served vectors have {served.shape[1]} dimensions, the model's own {own.shape[1]}")
    lengths = np.linalg.norm(served, axis=1) * np.linalg.norm(own, axis=1)
    cosines = np.einsum("nd,nd->n", served, own, dtype=np.float64) / np.maximum(lengths, np.finfo(np.float32).tiny)
    apart = np.maximum(0.0, 1 - cosines)
    return Drift(len(own), float(apart.mean()), float(apart.max()))
