"""The workers of a run on a Ray cluster: started, sent parts, replaced if lost, and ended with the run."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from embfit.cluster.capacity import GB
from embfit.cluster.protocol import Work
from embfit.cluster.ray_worker import Refused, Worker, WorkerFacts, import_ray, pack, versions
from embfit.errors import UserError, first_line

log = logging.getLogger(__name__)

AHEAD = 2  # parts sent to a worker at a time: the next one is transferred while it computes
ATTEMPTS = 3  # workers that one part may crash, or that may fail to start in a row
START_SECONDS = 300.0  # seconds without any worker before the run fails; a start takes a minute on a busy machine
REASONS = {  # the reasons behind Ray's long messages
    "memory on the node": "its machine was short of memory, and Ray has ended it",
    "node has died": "its machine is gone",
    "node was terminated": "its machine is gone",
    "worker process has died": "its process has died",
    "is unavailable": "it cannot be reached",
}
MOST_SAID = 300  # characters of any other reason
LIKELY = "most often memory runs out: lower cluster.workers, or set cluster.memory_gb so that fewer share a machine"


@dataclass(eq=False)
class _Member:
    """A worker, from this process's view.

    Args:
        handle: Ray's actor handle.
        parts: the numbers of the parts that were sent to it, by the references to their results.
        place: its machine and process, for messages.
    """

    handle: Any
    parts: dict[Any, int] = field(default_factory=dict)
    place: str = ""


class RayWorkers:
    """Workers that share parts of work.

    Each runs embfit's own code in a Ray actor. Ray Data would add nothing useful, and has two traps: its fixed
    pools wait forever when an actor has died (ray#62746), and so do its reading tasks when actors hold every CPU
    (ray#44687). Actors without Ray Data need no further CPU.

    Args:
        count: the number of workers.
        options: the resources of each, for Ray's `options`.
        device: the device of each, by PyTorch's name.
        threads: the number of threads of each on a CPU.
    """

    def __init__(self, count: int, options: dict[str, Any], device: str, threads: int) -> None:
        self._ray = import_ray()
        self._kind = self._ray.remote(Worker)
        self._options, self._threads = options, threads
        self.device = device
        self._starting: dict[Any, _Member] = {}  # by the reference to its facts
        self._members: list[_Member] = []
        self._failed_starts = 0
        for _ in range(count):
            self._start()

    def __len__(self) -> int:
        """Return how many workers have started."""
        return len(self._members)

    @property
    def places(self) -> list[str]:
        """The machine and process of each worker that has started."""
        return [member.place for member in self._members]

    def wait_for_one(self) -> None:
        """Wait until a worker has started, and add all that have.

        Raises:
            UserError: no worker starts, or one has other versions of what results depend on.
        """
        while not self._members:
            self._await([])
        self._await([], at_once=True)

    def spread(self, work: Work, part: Callable[[int], Any], numbers: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """Yield the numbers of parts with their results: as `Cluster.spread`.

        Raises:
            RuntimeError: another work has unfinished parts; only one work runs at a time, because parts have no names.
        """
        waiting, ended = deque(numbers), Counter[int]()
        if not waiting:
            return
        if any(member.parts for member in self._members):
            raise RuntimeError(
                "the workers are busy with other work; read all of its results, or close it, before the next one"
            )
        name, packed = uuid4().hex, self._ray.put(pack(work))

        def send(member: _Member) -> None:
            number = waiting.popleft()
            result = member.handle.do.remote(name, [packed], self._ray.put(part(number)))
            member.parts[result] = number

        try:
            while waiting or any(member.parts for member in self._members):
                for ahead in range(AHEAD):  # in turn, so that each worker has one part before any has two
                    for member in self._members:
                        if waiting and len(member.parts) <= ahead:
                            send(member)
                sent = [result for member in self._members for result in member.parts]
                for worker, result in self._await(sent):
                    if result not in worker.parts:  # its worker was lost while computing another part
                        continue
                    try:
                        found = self._ray.get(result)
                    except self._ray.exceptions.RayTaskError as error:
                        raise error.cause or error from error
                    except self._ray.exceptions.RayError as error:
                        number = next(
                            iter(worker.parts.values())
                        )  # the worker computed this part; its other parts were waiting
                        ended[number] += 1
                        if ended[number] >= ATTEMPTS:
                            raise UserError(
                                f"part {number} ended {ATTEMPTS} workers, the last on {worker.place} "
                                f"({_reason(error)}); {LIKELY}"
                            ) from error
                        waiting.extendleft(reversed(self._replace(worker, error)))
                        continue
                    number = worker.parts.pop(result)
                    if isinstance(found, Refused):
                        raise UserError(found.message)
                    yield number, found
        finally:
            for member in self._members:
                for result in member.parts:
                    self._ray.cancel(result)  # parts that have not started are dropped
                member.parts.clear()
                member.handle.forget.remote()  # the next work is sent again anyway, and others need the memory

    def end(self) -> None:
        """End all workers at once."""
        for member in (*self._members, *self._starting.values()):
            self._ray.kill(member.handle)
        self._members.clear()
        self._starting.clear()

    def _start(self) -> None:
        handle = self._kind.options(**self._options).remote(self.device, self._threads)
        self._starting[handle.facts.remote()] = _Member(handle)

    def _replace(self, member: _Member, error: Exception) -> list[int]:
        """Replace a lost worker; return the parts that it had."""
        log.warning("the worker on %s is lost (%s); its parts are done again", member.place, _reason(error))
        self._ray.kill(member.handle)  # if only the connection to it is lost
        self._members.remove(member)
        self._start()
        parts = list(member.parts.values())
        member.parts.clear()
        return parts

    def _await(self, results: list[Any], at_once: bool = False) -> list[tuple[_Member, Any]]:
        """Wait for a result or for a worker to start; return the finished results.

        Args:
            results: the references of the results.
            at_once: whether to return at once, without waiting.

        Raises:
            UserError: there are no workers, and none starts.
        """
        awaited = [*results, *self._starting]
        done: list[Any] = []
        if awaited:
            count = len(awaited) if at_once else 1
            seconds = 0.0 if at_once else None if self._members else START_SECONDS
            done, _ = self._ray.wait(awaited, num_returns=count, timeout=seconds, fetch_local=False)
        if not done and not self._members:
            free = self._ray.available_resources()
            cpus, gpus, memory = (free.get(name, 0.0) for name in ("CPU", "GPU", "memory"))
            raise UserError(
                f"no worker has started for {START_SECONDS:.0f} s; free in the cluster are {cpus:g} CPUs, {gpus:g} "
                f"GPUs and {memory / GB:.1f} GB; wait until other work there is done, or lower cluster.cpus, "
                "cluster.gpus or cluster.memory_gb"
            )
        owner = {result: member for member in self._members for result in member.parts}
        for one in done:
            if one in self._starting:
                self._take_in(self._starting.pop(one), one)
        there = set(done)
        return [(owner[one], one) for one in results if one in there]  # a worker's results in the order of computing

    def _take_in(self, member: _Member, facts: Any) -> None:
        """Add a worker that has started, or start another one if it has failed.

        Raises:
            UserError: several have failed in a row, or it has other versions of what results depend on.
        """
        try:
            found: WorkerFacts = self._ray.get(facts)
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= ATTEMPTS:
                raise UserError(
                    f"{ATTEMPTS} workers could not start ({_reason(error)}); every machine of the cluster needs this "
                    "embfit in the Python that `ray start` was called from"
                ) from error
            self._start()
            return
        self._failed_starts = 0
        member.place = f"{found.machine} (process {found.process})"
        here = versions()
        other = {name: found.versions.get(name) for name in here if found.versions.get(name) != here[name]}
        if other:
            said = ", ".join(f"{name} {there}, not {here[name]}" for name, there in other.items())
            raise UserError(
                f"the worker on {found.machine} has {said}; its results would differ: install what this machine has"
            )
        self._members.append(member)


def _reason(error: BaseException) -> str:
    """Return in a few words why Ray has lost a worker."""
    said = " ".join(str(error).split())
    for words, told in REASONS.items():
        if words in said:
            return told
    return first_line(error)[:MOST_SAID]
