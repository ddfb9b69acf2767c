"""A worker: a process on a machine of a Ray cluster, which keeps the last work that it received."""

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
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # suppresses all lines, which Ray would print into a progress bar
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise Ray warns of how it hides GPUs from workers without one
}
LIBRARIES = ("torch", "transformers", "numpy", "faiss-cpu")  # packages that results depend on


@dataclass(frozen=True)
class WorkerFacts:
    """Facts about a worker.

    Args:
        machine: the name of its machine.
        process: the number of its process there.
        versions: the versions of Python, embfit and the libraries that results depend on.
    """

    machine: str
    process: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Refused:
    """A worker's answer instead of a result, if a part has raised a `UserError`.

    Args:
        message: the error's message.
    """

    message: str


class Worker:
    """Computes parts of works, one at a time.

    Args:
        device: the device, by PyTorch's name.
        threads: the number of threads on a CPU.
    """

    def __init__(self, device: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.device = device
        self._name = ""
        self._do: Do | None = None

    def facts(self) -> WorkerFacts:
        """Return the machine, the process and the versions that results depend on."""
        return WorkerFacts(socket.gethostname(), os.getpid(), versions())

    def do(self, name: str, work: list[Any], part: Any) -> Any:
        """Compute one part and return its result.

        Args:
            name: identifies the work.
            work: the reference to the pickled work, fetched if this worker has another one. It is in a list, because
                Ray replaces a bare reference by its object.
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
        """Free the memory of the last work, such as a model on a shared GPU."""
        import torch

        self._do = None
        torch.cuda.empty_cache()  # does nothing if no GPU was used

    def _fetch(self, reference: Any) -> Do:
        import torch

        packed = io.BytesIO(import_ray().get(reference))
        work: Work = torch.load(packed, map_location="cpu", weights_only=False)  # written by the run's own process
        return work.prepare(self.device)


def import_ray() -> Any:
    """Import Ray without telemetry and with as few log lines as possible."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    import ray

    return ray


def pack(work: Work) -> bytes:
    """Pickle a work, with all tensors moved to the CPU."""
    import torch

    packed = io.BytesIO()
    torch.save(work, packed)
    return packed.getvalue()


def versions() -> dict[str, str]:
    """Return the versions of Python, embfit and the libraries that results depend on."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"Python": python, "embfit": version.__version__, **{name: release(name) for name in LIBRARIES}}
