"""Jobs on a SLURM cluster through submitit: an array of jobs whose folders are on a disk that all nodes share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from embfit.compose.problems import Problem
from embfit.errors import ConfigError, UserError, first_line
from embfit.launcher.prepared_job import JOBS, PreparedJob, inherited_module_path
from embfit.run.console import show_error
from embfit.run.record import read_status

log = logging.getLogger(__name__)

POLL = 2.0  # seconds between two checks of the folder; the scheduler itself is asked far less often
ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED", "COMPLETING")


@dataclass(frozen=True)
class Slurm:
    """Submits jobs and waits for them.

    A job that is preempted or reaches its time limit is queued again and resumes at its last checkpoint, up to three
    times. If the waiting process ends, the same command finds the jobs that are queued or running.

    Args:
        cluster: where jobs run: `slurm`, or `local` to try it out on this machine without SLURM.
        partition: the cluster's partition; None uses its default.
        account: the account that pays; None uses the user's default.
        minutes: the time limit of a job.
        nodes: the nodes of each job; trainer.num_nodes must be the same.
        ranks: the processes on each node, which train together, one per GPU; trainer.devices must be the same.
        gpus: the GPUs on each node; 0 for a cluster of CPUs.
        cpus: the CPU cores for each rank.
        memory_gb: the memory on each node in GB; None uses the cluster's default.
        max_parallel: the number of jobs that may run at a time.
        setup: shell commands to run before each job, such as `module load cuda`.
        options: further options of sbatch by name: `{constraint: a100}`.
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
                f"launcher.cluster={self.cluster} starts one process per job; set launcher.ranks=1 launcher.nodes=1 "
                "(trainer=ddp starts its own ranks)"
            )

    def trainer_problems(self, choice: str | None, trainer: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the trainer settings of a job that do not match the ranks that the cluster starts for it.

        Args:
            choice: the choice of the group `trainer`.
            trainer: the trainer's settings.
        """
        if choice == "slurm":
            reason = "trainer=slurm reads the environment of a running job, but a sweep resolves jobs before they run"
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
            KeyboardInterrupt: Ctrl-C; the jobs are cancelled and can be resumed.
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
        return [_show_error(job, submitted[job.number]) for job in jobs]

    def _executor(self, folder: Path) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise ConfigError("launcher=slurm needs submitit; install it with: pip install 'embfit[slurm]'") from error
        try:
            executor = submitit.AutoExecutor(folder.absolute() / JOBS / "%j", cluster=self.cluster)
            executor.update_parameters(**self._parameters(folder))
        except (RuntimeError, ValueError, NameError) as error:
            raise ConfigError(f"launcher=slurm: {first_line(error)}") from error
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
        """Return the submitted jobs by number; jobs that an earlier call submitted are not submitted again."""
        found = {job.number: earlier for job in jobs if (earlier := self._still_queued(job, folder)) is not None}
        new = [job for job in jobs if job.number not in found]
        made = self._submit(executor, [Attempt(job.write(folder).absolute()) for job in new])
        for prepared, job in zip(new, made, strict=True):
            _submission_file(folder, prepared).write_text(job.job_id, encoding="utf-8")
            log.info("%s is submitted as %s; its output is in %s", prepared.name, job.job_id, job.paths.stderr)
        return found | {prepared.number: job for prepared, job in zip(new, made, strict=True)}

    def _submit(self, executor: Any, attempts: Sequence[Attempt]) -> list[Any]:
        try:
            with inherited_module_path(), executor.batch():
                return [executor.submit(attempt) for attempt in attempts]
        except (RuntimeError, OSError) as error:  # sbatch failed or is not installed
            raise UserError(f"launcher=slurm: the jobs cannot be submitted: {_last_line(error)}") from error

    def _still_queued(self, job: PreparedJob, folder: Path) -> Any:
        """Return the job that an earlier call submitted; None if there is none or it has ended."""
        ticket = _submission_file(folder, job)
        if self.cluster != "slurm" or not ticket.is_file():
            return None
        import submitit

        name = ticket.read_text(encoding="utf-8")
        tasks = list(range(self.nodes * self.ranks))
        earlier: Any = submitit.SlurmJob(folder.absolute() / JOBS / "%j", name, tasks)
        if earlier.done() or earlier.watcher.get_state(name, mode="force").split(" ")[0] not in ALIVE:
            return None
        log.info("%s was submitted before, as %s", job.name, name)
        return earlier


class Attempt:
    """What a process on the cluster calls, and calls again after the job was preempted.

    Args:
        file: the file of the prepared job.
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
        """Return what to queue again; the run's own checkpoints tell where to resume."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _submission_file(folder: Path, job: PreparedJob) -> Path:
    return folder / JOBS / f"{job.number}.submitted"


def _last_line(error: BaseException) -> str:
    """Return the last line of an error's message, where tracebacks and sbatch say what is wrong."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _show_error(prepared: PreparedJob, job: Any) -> str | None:
    """Show a job's error and return it; None if there is none."""
    failure = job.exception()
    if failure is None:
        return None
    status = read_status(prepared.dir) or {}
    message = str(status.get("error") or f"{_last_line(failure)}; see {job.paths.stderr}")
    show_error(f"{prepared.name}: {message}")
    return message
