"""One worker: a process on some machine of a Ray cluster, which keeps the work that it was last sent."""

from __future__ import annotations

import io
import os
import platform
import socket
from dataclasses import dataclass
from importlib.metadata import version as release
from typing import Any

from embfit import version
from embfit.cluster.protocol import Do, Work
from embfit.errors import UserError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # skips all lines, which Ray would print in the midst of a progress bar
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns of how it hides GPUs from workers without one
}
LIBRARIES = ("torch", "transformers", "numpy", "faiss-cpu")  # that results depend on


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker says of itself.

    Args:
        machine: the name of its machine.
        process: the number of its process there.
        versions: of Python, embfit and the libraries that results depend on.
    """

    machine: str
    process: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Refused:
    """What a worker returns in the place of a result where a part has raised a `UserError`.

    Args:
        message: the error's.
    """

    message: str


class Worker:
    """Does parts of works, one at a time.

    Args:
        device: what it computes on, by PyTorch's name.
        threads: how many threads it computes with on a CPU.
    """

    def __init__(self, device: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.device = device
        self._name = ""
        self._do: Do | None = None

    def facts(self) -> WorkerFacts:
        """Say where this is, and what results depend on here."""
        return WorkerFacts(socket.gethostname(), os.getpid(), versions())

    def do(self, name: str, work: list[Any], part: Any) -> Any:
        """Do one part and return its result.

        Args:
            name: identifies the work.
            work: the reference to the pickled work, fetched where this worker has another; in a list, since Ray sends
                an object itself in the place of a reference that stands alone.
            part: the part's input.
        """
        try:
            if self._do is None or self._name != name:
                self._do = None  # before the next one is loaded: two models may not fit
                self._do, self._name = self._fetch(work[0]), name
            return self._do(part)
        except UserError as error:
            return Refused(str(error))

    def forget(self) -> None:
        """Give the memory of the last work back: of a model, on a GPU that this worker shares perhaps."""
        import torch

        self._do = None
        torch.cuda.empty_cache()  # nothing where no GPU was used

    def _fetch(self, reference: Any) -> Do:
        import torch

        packed = io.BytesIO(import_ray().get(reference))
        work: Work = torch.load(packed, map_location="cpu", weights_only=False)  # written by the run's own process
        return work.prepare(self.device)


def import_ray() -> Any:
    """Import Ray, which reports nothing to its makers then, and says no more than it must."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    import ray

    return ray


def pack(work: Work) -> bytes:
    """Pickle a work, its tensors on whatever device as they are on a CPU."""
    import torch

    packed = io.BytesIO()
    torch.save(work, packed)
    return packed.getvalue()


def versions() -> dict[str, str]:
    """Return the versions of Python, embfit and the libraries that results depend on."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"Python": python, "embfit": version.__version__, **{name: release(name) for name in LIBRARIES}}
