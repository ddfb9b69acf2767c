"""The `cluster` group: the workers of a Ray cluster, which a task joins while it runs.

The machines need only Ray's own connections: models, texts and vectors are sent through Ray, and only the run's own
process reads and writes the store and the run's folder.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from embfit.cluster.capacity import GB, number_of_workers
from embfit.cluster.connection import computing_on
from embfit.cluster.ray_worker import import_ray
from embfit.cluster.ray_workers import RayWorkers
from embfit.errors import ConfigError, UserError, first_line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayCluster:
    """Workers of a Ray cluster, which share the long-running work.

    Args:
        address: `HOST:PORT` of the cluster's head, or `auto` for the cluster of this machine; None uses `RAY_ADDRESS`,
            and without that starts Ray on this machine, only for this run.
        workers: the number of worker processes on all machines; None is as many as fit.
        cpus: the CPUs of each worker, which computes with as many threads.
        gpus: the GPUs of each worker; below 1, several share one.
        memory_gb: the memory of each worker, as Ray counts it; None leaves memory out of the count.
        resources: further resources of each worker, by the names that `ray start --resources` gave them; None is none.
        object_store_gb: the size of Ray's object store where Ray is started here.

    Raises:
        ConfigError: Ray is not installed, or the address is that of a Ray client.
    """

    address: str | None = None
    workers: Annotated[int, Field(ge=1)] | None = None
    cpus: Annotated[float, Field(gt=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] = 0.0
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    resources: Mapping[str, float] | None = None
    object_store_gb: Annotated[float, Field(ge=0.1)] = 2.0

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("cluster=ray needs the package ray: pip install 'embfit[ray]'")
        if (self.address or "").startswith("ray://"):
            raise ConfigError(
                f"address={self.address} is of a Ray client, through which vectors would take a detour; run embfit on "
                "a machine of the cluster, and give HOST:6379 or auto"
            )

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Distribute the work inside the block over the cluster's workers.

        Raises:
            UserError: the cluster cannot be reached, has no room for the workers, or they cannot start.
        """
        ray = import_ray()
        try:
            here = self._connect(ray)
            machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            count = number_of_workers(machines, self._each, self.workers)
            options = {
                "num_cpus": self.cpus,
                "num_gpus": self.gpus,
                "memory": None if self.memory_gb is None else int(self.memory_gb * GB),
                "resources": dict(self.resources or {}),
                "scheduling_strategy": "SPREAD",
                "max_restarts": 0,  # a lost worker is replaced, perhaps on another machine
            }
            workers = RayWorkers(count, options, "cuda" if self.gpus else "cpu", max(1, int(self.cpus)))
            try:
                workers.wait_for_one()
                log.info(
                    "Ray%s: %d machines, %d of %d workers have started",
                    " was started on this machine" if here else "",
                    len(machines),
                    len(workers),
                    count,
                )
                with computing_on(workers):
                    yield
            finally:
                workers.end()
        finally:
            ray.shutdown()

    @property
    def _each(self) -> dict[str, float]:
        """The resources of a worker, by Ray's names."""
        memory = 0.0 if self.memory_gb is None else self.memory_gb * GB
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": memory, **(self.resources or {})}

    def _connect(self, ray: Any) -> bool:
        """Join the cluster, or start Ray here; return whether it was started here.

        Raises:
            UserError: there is no cluster at the address, or it runs another version of Ray or Python.
        """
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        here = address == "local"
        own: dict[str, Any] = (
            {"object_store_memory": int(self.object_store_gb * GB), "include_dashboard": False} if here else {}
        )
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
        except SystemExit as end:  # Ray's exception if SIGTERM arrives meanwhile
            raise KeyboardInterrupt from end
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"cluster.address={address}: no Ray cluster can be joined there ({first_line(error)}); start one with "
                "`ray start --head`, or set cluster.address=null to try on this machine"
            ) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray's own handler would end the process at once
        return here
