"""The folder of a sweep: `sweep.json`, which records what was asked, and one folder per job."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from embfit.atomic_files import write_text
from embfit.errors import ConfigError, UserError
from embfit.run.record import read_record, read_state
from embfit.run.resume import SWEEP_RECORD as RECORD
from embfit.sweep.job import ENDED, Result, SweepJob
from embfit.sweep.objective import Objective, read_objective

log = logging.getLogger(__name__)

KEYS = {"command", "strategy", "complete", "jobs"}  # of the record


class SweepFolder:
    """Records a sweep's jobs, so that the same command resumes an unfinished sweep.

    Args:
        dir: the folder.
        command: the overrides that identify the sweep.
        strategy: the name of the class that chooses which points to run.
    """

    def __init__(self, dir: Path, command: Sequence[str], strategy: str) -> None:
        self.dir = dir
        self.command = list(command)
        self.strategy = strategy
        self.jobs: dict[int, SweepJob] = {}
        self.errors: dict[int, str] = {}  # errors of jobs that failed before they had a run record

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder for this process and read the record that an earlier one left.

        Raises:
            ConfigError: the folder belongs to another sweep, or another process is running a sweep in it.
        """
        self.dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.dir / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigError(
                f"run.dir={self.dir}: another process is running a sweep there; wait, or name another folder"
            ) from error
        try:
            self._read()
            yield
        finally:
            lock.release()

    def begin(self, jobs: Sequence[SweepJob]) -> None:
        """Record jobs before they are launched.

        Raises:
            ConfigError: the folder has another point under the number of one of the jobs.
        """
        for job in jobs:
            known = self.jobs.setdefault(job.number, job)
            if dict(known.point) != dict(job.point):
                raise ConfigError(
                    f"{self.dir / RECORD}: job {job.number} was {_shown(known.point)} and would now be "
                    f"{_shown(job.point)}; name another folder with run.dir=DIR"
                )
        self._write(complete=False)

    def complete(self) -> None:
        """Record that no more jobs will be proposed; some of them may have failed."""
        self._write(complete=True)

    def is_done(self, job: SweepJob) -> bool:
        """Say whether a job needs no more work."""
        return read_state(self.dir / str(job.number)) in ENDED

    def result(self, job: SweepJob, objectives: Sequence[Objective]) -> Result:
        """Return a job's result with the values of the objectives."""
        error = self.errors.get(job.number)
        folder = self.dir / str(job.number)
        try:
            run = read_record(folder)
        except UserError:
            return Result(job, "failed" if error else read_state(folder) or "waiting", error)
        minutes = _minutes(run.status)
        state = str(run.status["state"])
        return Result(
            job,
            state="failed" if state == "running" and error else state,  # a killed job could not record its end
            error=run.status["error"] or error,
            values=tuple(read_objective(objective.name, run.report, run.config, minutes) for objective in objectives),
            headline=run.headline[1] if run.headline else {},
            minutes=minutes,
        )

    def _write(self, complete: bool) -> None:
        jobs = [{"number": job.number, "point": dict(job.point)} for job in self.jobs.values()]
        record = {"command": self.command, "strategy": self.strategy, "complete": complete, "jobs": jobs}
        write_text(self.dir / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    def _read(self) -> None:
        file = self.dir / RECORD
        if not file.is_file():
            return
        record = _record(file)
        if record is None:
            raise ConfigError(f"{file} cannot be read; name another folder with run.dir=DIR")
        if (record["command"], record["strategy"]) != (self.command, self.strategy):
            held = " ".join([*record["command"], f"by {record['strategy']}"])
            raise ConfigError(f"run.dir={self.dir} contains another sweep ({held}); name another folder")
        self.jobs = {job["number"]: SweepJob(job["number"], job["point"]) for job in record["jobs"]}


def unfinished(parent: Path, command: Sequence[str], strategy: str) -> Path | None:
    """Return the latest folder `parent/DATE/TIME` of the same sweep with an unfinished job; None if there is none."""
    for file in sorted(parent.glob(f"*/*/{RECORD}"), reverse=True):
        record = _record(file)
        if record is None:
            log.warning("%s cannot be read and is skipped", file)
        elif (record["command"], record["strategy"]) == (list(command), strategy):
            open_jobs = [job for job in record["jobs"] if read_state(file.parent / str(job["number"])) not in ENDED]
            return file.parent if open_jobs or not record["complete"] else None
    return None


def _record(file: Path) -> dict[str, Any] | None:
    """Return a sweep's record; None if the file is not one."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.keys() >= KEYS else None


def _minutes(status: Mapping[str, Any]) -> float | None:
    """Return how long all attempts of a run took; None if it has not ended."""
    return status["seconds"] / 60 if status.get("finished") and "seconds" in status else None


def _shown(point: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in point.items())
