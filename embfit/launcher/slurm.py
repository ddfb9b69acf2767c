"""Jobs on a SLURM cluster, by submitit: one array of jobs, each in the sweep's folder on a disk that all nodes see."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from embfit.compose.problems import Problem
from embfit.errors import ConfigError, UserError
from embfit.launcher.prepared import JOBS, PreparedJob, inherited_module_path
from embfit.run.console import show_error
from embfit.run.record import read_status

log = logging.getLogger(__name__)

POLL = 2.0  # seconds between two looks at the folder; the scheduler itself is asked far less often
ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED", "COMPLETING")


@dataclass(frozen=True)
class Slurm:
    """Submits jobs and waits for them.

    A job that is preempted, or that reaches its time limit, is queued again and goes on at its last checkpoint, up to
    three times. When the waiting process is lost, the same command finds the jobs that are queued or running.

    Args:
        cluster: slurm; local runs the jobs on this machine as SLURM would, to try it out.
        partition: of the cluster; None is its default.
        account: that pays; None is the user's default.
        minutes: time limit of a job.
        nodes: of each job; trainer.num_nodes says the same.
        ranks: processes on each node, which train together; trainer.devices says the same. One GPU for each.
        gpus: on each node; 0 on a cluster of CPUs.
        cpus: for each rank.
        memory_gb: on each node; None is the cluster's default.
        max_parallel: jobs that may run at a time.
        setup: shell commands before each job, such as `module load cuda`.
        options: more of sbatch's, by name: `{constraint: a100}`.
    """

    cluster: Literal["slurm", "local"] = "slurm"
    partition: str | None = None
    account: str | None = None
    minutes: Annotated[int, Field(ge=1)] = 720
    nodes: Annotated[int, Field(ge=1)] = 1
    ranks: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[int, Field(ge=0)] = 1
    cpus: Annotated[int, Field(ge=1)] = 8
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    max_parallel: Annotated[int, Field(ge=1)] = 8
    setup: Sequence[str] = ()
    options: Mapping[str, str | int] | None = None

    def __post_init__(self) -> None:
        if self.cluster != "slurm" and self.nodes * self.ranks > 1:
            raise ConfigError(
                f"launcher.cluster={self.cluster} starts one process a job; set launcher.ranks=1 launcher.nodes=1 "
                "(trainer=ddp starts its own ranks there)"
            )

    def misfits(self, choice: str | None, trainer: Mapping[str, Any]) -> Iterator[Problem]:
        """Say where the trainer of a job does not train with the ranks that the cluster starts for it.

        Args:
            choice: of the group `trainer`.
            trainer: its settings.
        """
        if choice == "slurm":
            reason = "slurm reads its ranks from a job's environment, and jobs are settled before they have one"
            yield Problem("trainer", f"{reason}; set trainer=ddp trainer.devices={self.ranks}")
        elif self.ranks * self.nodes > 1:
            devices, nodes = trainer.get("devices"), trainer.get("num_nodes", 1)
            if (len(devices) if isinstance(devices, list) else devices) != self.ranks:
                reason = f"{devices} is not the {self.ranks} processes that launcher.ranks starts on each node"
                yield Problem("trainer.devices", f"{reason}; set trainer=ddp trainer.devices={self.ranks}")
            if nodes != self.nodes:
                reason = f"{nodes} is not launcher.nodes={self.nodes}"
                yield Problem("trainer.num_nodes", f"{reason}; set trainer.num_nodes={self.nodes}")

    def launch(self, jobs: Sequence[PreparedJob], folder: Path, ended: Callable[[], None]) -> list[str | None]:
        """Run jobs; return the error of each, None for those that went well.

        Raises:
            ConfigError: submitit or the cluster is not there, or does not know an option.
            UserError: the cluster refuses the jobs.
            KeyboardInterrupt: Ctrl-C; the jobs are cancelled and can be gone on with.
        """
        executor = self._executor(folder)
        submitted = self._submitted(executor, jobs, folder)
        waiting = dict(submitted)
        try:
            while waiting:
                for number in [number for number, job in waiting.items() if job.done()]:
                    del waiting[number]
                    log.info("%d of %d jobs have ended", len(jobs) - len(waiting), len(jobs))
                    ended()
                time.sleep(POLL if waiting else 0)
        except BaseException:
            for job in waiting.values():
                job.cancel()
            raise
        return [_told(job, submitted[job.number]) for job in jobs]

    def _executor(self, folder: Path) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise ConfigError("launcher=slurm needs submitit; install it with: pip install 'embfit[slurm]'") from error
        try:
            executor = submitit.AutoExecutor(folder.absolute() / JOBS / "%j", cluster=self.cluster)
            executor.update_parameters(**self._parameters(folder))
        except (RuntimeError, ValueError, NameError) as error:
            raise ConfigError(f"launcher=slurm: {str(error).splitlines()[0]}") from error
        return executor

    def _parameters(self, folder: Path) -> dict[str, Any]:
        asked = {
            "name": f"embfit-{folder.name}",
            "timeout_min": self.minutes,
            "nodes": self.nodes,
            "tasks_per_node": self.ranks,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "mem_gb": self.memory_gb,
        }
        slurm = {
            "partition": self.partition,
            "account": self.account,
            "array_parallelism": self.max_parallel,
            "setup": list(self.setup) or None,
            "additional_parameters": self.options and dict(self.options),
        }
        asked |= {f"slurm_{name}": value for name, value in slurm.items()} if self.cluster == "slurm" else {}
        return {name: value for name, value in asked.items() if value is not None}

    def _submitted(self, executor: Any, jobs: Sequence[PreparedJob], folder: Path) -> dict[int, Any]:
        """Submit jobs, those left out that an earlier call submitted and that are still to come."""
        found = {job.number: left for job in jobs if (left := self._left(job, folder)) is not None}
        new = [job for job in jobs if job.number not in found]
        made = self._submit(executor, [Attempt(job.write(folder).absolute()) for job in new])
        for prepared, job in zip(new, made, strict=True):
            _ticket(folder, prepared).write_text(job.job_id, encoding="utf-8")
            log.info("%s is submitted as %s; %s has what it says", prepared.name, job.job_id, job.paths.stderr)
        return found | {prepared.number: job for prepared, job in zip(new, made, strict=True)}

    def _submit(self, executor: Any, attempts: Sequence[Attempt]) -> list[Any]:
        try:
            with inherited_module_path(), executor.batch():
                return [executor.submit(attempt) for attempt in attempts]
        except (RuntimeError, OSError) as error:  # sbatch said no, or is not there
            said = str(error).strip().splitlines()
            raise UserError(f"launcher=slurm: the jobs cannot be submitted: {said[-1] if said else error!r}") from error

    def _left(self, job: PreparedJob, folder: Path) -> Any:
        """Return a job that an earlier call submitted, None where there is none or it has ended."""
        ticket = _ticket(folder, job)
        if self.cluster != "slurm" or not ticket.is_file():
            return None
        import submitit

        name = ticket.read_text(encoding="utf-8")
        tasks = list(range(self.nodes * self.ranks))
        left: Any = submitit.SlurmJob(folder.absolute() / JOBS / "%j", name, tasks)
        if left.done() or left.watcher.get_state(name, mode="force").split(" ")[0] not in ALIVE:
            return None
        log.info("%s is there already, as %s", job.name, name)
        return left


class Attempt:
    """What a cluster's process calls, again after it was preempted.

    Args:
        file: of the prepared job.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self) -> None:
        """Run the job, as one of its ranks."""
        from embfit.launcher.distributed import on_first_rank
        from embfit.run.console import listen

        listen()
        on_first_rank(PreparedJob.read(self.file).run)

    def checkpoint(self) -> Any:
        """Return what to queue again; the run's own checkpoints say where to go on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _ticket(folder: Path, job: PreparedJob) -> Path:
    return folder / JOBS / f"{job.number}.submitted"


def _told(prepared: PreparedJob, job: Any) -> str | None:
    """Return a job's error and show it, None when there is none."""
    failure = job.exception()
    if failure is None:
        return None
    status = read_status(prepared.dir) or {}
    message = str(status.get("error") or f"{str(failure).strip().splitlines()[-1]}; see {job.paths.stderr}")
    show_error(f"{prepared.name}: {message}")
    return message
