"""The folder of one run: its configuration, its results, and how it ended.

It holds `config.yaml` (resolved), `provenance.json` (where each value was written), `versions.json`, `log.txt` and
`status.json`; the task adds its own files. Starting a run never destroys the results of another: a run with the same
configuration resumes the earlier one, and a run with another configuration is refused if something was trained.
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from filelock import FileLock, Timeout

from embfit.atomic_files import write_text
from embfit.compose.command_line import typed
from embfit.compose.targets import MissingTargetError
from embfit.compose.tasks import TaskDeclaration, declaration
from embfit.compose.value_origins import Origins
from embfit.errors import ConfigError, is_disk_full
from embfit.run.exit_status import exit_status
from embfit.run.record import read_state, read_status, seconds_spent
from embfit.run.resume import holds_run_of, recorded_directory, recorded_task, started_elsewhere
from embfit.run.versions import versions

log = logging.getLogger(__name__)


class RunFolder:
    """A run's folder as a context manager: entering records the configuration, and leaving records how the run ended.

    Args:
        dir: the folder, which is made when it is entered.
        config: the resolved configuration.
        origins: where each of its values was written.
        overrides: the command line.
        resuming: whether to resume an unfinished run in the folder; one with the same configuration is always
            resumed.
        overwrite: whether to replace an unfinished run of another configuration, even if it had trained something.

    Raises:
        ConfigError: (when entered) a finished or a running run is in the folder; or an unfinished one that
            has trained something with another configuration, or was started in another directory; or the folder cannot
            be made.
        OSError: (when entered) the folder cannot be written.
    """

    def __init__(
        self,
        dir: Path,
        config: Mapping[str, Any],
        origins: Mapping[str, str],
        overrides: Sequence[str] = (),
        resuming: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.dir = dir
        self.resuming = resuming
        self.overwrite = overwrite
        self.timings: dict[str, float] = {}
        self.config = config
        self.origins = origins
        self.overrides = overrides
        self._status: dict[str, Any] = {"state": "running", "stage": None, "error": None}
        self._began = time.monotonic()
        self._spent = 0.0  # seconds that earlier attempts took
        self._lock = FileLock(dir / ".lock")
        self._log: logging.Handler | None = None

    @property
    def command(self) -> str:
        """The command that starts the run again."""
        return shlex.join(["python", "-m", "embfit", *self.overrides])

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Log and record the current stage, and its seconds in `timings`."""
        log.info("%s", name)
        self._status["stage"] = name
        self._write_status()
        started = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - started

    def __enter__(self) -> Self:
        try:
            self.dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if is_disk_full(error):
                raise
            raise ConfigError(
                f"run.dir={self.dir} cannot be made ({error.strerror}); name a folder that you may write to"
            ) from error
        self._take()
        try:
            self._begin()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = exit_status(error)
        if error is not None and end.state == "failed" and self._log is not None:
            record = logging.LogRecord(__name__, logging.ERROR, __file__, 0, end.message, None, (kind, error, trace))  # type: ignore[arg-type]  # the three are set together
            self._log.handle(record)  # the console shows only the message
            error.add_note(f"the run's log: {self.dir / 'log.txt'}")
        elif error is not None and end.state != "failed":
            error.add_note(f"resume it with: {typed('resume', str(self.dir))}")
        self._status |= {"state": end.state, "error": end.message or None, "finished": _now()}
        if end.state == "done":
            self._status["stage"] = None
        try:
            self._write_status()
        except OSError as refusal:  # a full disk, for example, must not hide the error that ended the run
            log.warning("cannot write %s: %s", self.dir / "status.json", refusal.strerror)
        finally:
            if self._log is not None:
                logging.getLogger().removeHandler(self._log)
                self._log.close()
            self._lock.release()

    def _take(self) -> None:
        """Claim the folder for this run: no two runs share a folder, and a finished run is never changed."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigError(f"run.dir={self.dir}: another run is using it; choose another run.dir") from error
        try:
            self._refuse_taken()
        except BaseException:
            self._lock.release()
            raise

    def _refuse_taken(self) -> None:
        restarts = declared(self.config).restarts
        if read_state(self.dir) == "done" and not restarts:
            raise ConfigError(f"run.dir={self.dir} holds a finished run; choose another run.dir, or remove the folder")
        if self.resuming:
            return
        if holds_run_of(self.dir, self.config) and not restarts:
            if directory := started_elsewhere(self.dir):
                raise ConfigError(
                    f"run.dir={self.dir} contains this unfinished run, which began in {directory}; its relative paths "
                    "start there, so run it from there, or choose another run.dir"
                )
            self.resuming = True
        elif not self._holds_a_run() and (found := self._in_the_way()):
            raise ConfigError(f"run.dir={self.dir} holds {found}, and no run of embfit; choose another run.dir")
        elif not self.overwrite and self._has_costly():
            raise ConfigError(
                f"run.dir={self.dir} holds an unfinished run of another configuration; "
                f"{typed('resume', str(self.dir))} continues that one, or choose another run.dir, or remove the "
                "folder"
            )

    def _holds_a_run(self) -> bool:
        return (self.dir / "provenance.json").is_file()  # the first file of a run's record

    def _earlier(self) -> TaskDeclaration:
        """Return the declarations of the task of the earlier run in this folder."""
        target = recorded_task(self.dir)
        try:
            return TaskDeclaration() if target is None else declaration(target)
        except MissingTargetError as error:
            raise ConfigError(
                f"run.dir={self.dir} holds a run of another task, and what that made is not known: {error}; choose "
                "another run.dir, or remove the folder"
            ) from error

    def _has_costly(self) -> bool:
        return any(next(self.dir.glob(name), None) for name in self._earlier().costly)

    def _in_the_way(self) -> str:
        """Return the name of a file of another run that this run would mistake for its own unfinished work."""
        names = dict.fromkeys(name.split("/")[0] for name in declared(self.config).costly)
        return next((path.name + "/" * path.is_dir() for name in names for path in self.dir.glob(name)), "")

    def _begin(self) -> None:
        before = read_status(self.dir) if self.resuming else None
        self._began = time.monotonic()
        self._spent = seconds_spent(
            self.dir, before or {}
        )  # before the log is written to, because this reads the log's age
        self._log = _LogFile(self.dir / "log.txt", encoding="utf-8")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(self._log)
        self._status |= {"started": (before or {}).get("started") or _now(), "finished": None}
        self._write_status()
        if not self.resuming:
            if self._holds_a_run() and self._has_costly():
                log.warning("the run in %s had another configuration, so it starts from the beginning", self.dir)
            self._clear()
            self._write_record()
            return
        log.info("resuming the unfinished run in %s", self.dir)
        if (directory := recorded_directory(self.dir)) is not None and not directory.is_dir():
            log.warning("the run began in %s, which is not there; its relative paths start here", directory)
        self._add_versions()

    def _clear(self) -> None:
        """Remove the files of an earlier run, so that none of them is mistaken for this run's."""
        if not self._holds_a_run():
            return  # other files in it belong to the user
        earlier, own = self._earlier(), declared(self.config)
        kept = {path for name in (*earlier.paid, *own.paid) for path in self.dir.glob(name)}
        made = {path for name in (*earlier.outputs, *own.outputs) for path in self.dir.glob(name)}
        (self.dir / "config.yaml").unlink(missing_ok=True)  # first: without this file, nothing is resumed
        for path in sorted(made - kept):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _write_record(self) -> None:
        config = yaml.safe_dump(dict(self.config), sort_keys=False, allow_unicode=True)
        write_text(self.dir / "provenance.json", _json(Origins.of(self.origins).record(self.config)))
        write_text(self.dir / "versions.json", _json(versions(self.overrides)))
        write_text(self.dir / "config.yaml", config)  # last: with this file, a killed run can be resumed

    def _add_versions(self) -> None:
        """Record this attempt's versions beside those of the first attempt."""
        file = self.dir / "versions.json"
        first: dict[str, Any] = {}
        with suppress(OSError, ValueError):  # the file may have been removed
            first = json.loads(file.read_text(encoding="utf-8"))
        resumed = [*first.get("resumed", ()), {"started": _now(), **versions(self.overrides)}]
        write_text(file, _json(first | {"resumed": resumed}))

    def _write_status(self) -> None:
        self._status["seconds"] = round(self._spent + time.monotonic() - self._began, 3)
        write_text(self.dir / "status.json", _json(self._status))


class _LogFile(logging.FileHandler):
    """A log file that ignores a full disk, which the run's own error reports."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Ignore a full disk."""
        error = sys.exc_info()[1]
        if error is None or not is_disk_full(error):
            super().handleError(record)

    def close(self) -> None:
        """Close the file, even if its buffer cannot be written."""
        try:
            super().close()
        except OSError as error:
            if not is_disk_full(error):
                raise


def declared(config: Mapping[str, Any]) -> TaskDeclaration:
    """Return the declarations of a configuration's task; empty ones if it names no task."""
    target = (config.get("task") or {}).get("_target_")
    return TaskDeclaration() if target is None else declaration(target)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
