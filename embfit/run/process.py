"""Runs one task, in a single process or in the first of several that torchrun or SLURM started."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from embfit.compose.build import bind_task, make
from embfit.compose.value_origins import Origins
from embfit.run.console import listen
from embfit.run.devices import devices_of
from embfit.run.folder import RunFolder
from embfit.run.full_disk import advice_on_full_disk, configured_folders
from embfit.run.resume import relocated
from embfit.run.unique_folder import unique_folder


def perform(
    values: Mapping[str, Any],
    origins: Mapping[str, str],
    overrides: Sequence[str] = (),
    resuming: bool = False,
    overwrite: bool = False,
) -> None:
    """Run the task of a checked configuration in its run folder.

    Args:
        values: the resolved configuration.
        origins: where each value was written.
        overrides: the command line, for the run's record.
        resuming: whether to resume the unfinished run in the folder.
        overwrite: whether to replace an unfinished run of another configuration in the folder.

    Raises:
        Exception: any exception of the task; the run folder has recorded it.
    """
    listen()
    folders = configured_folders(values)
    chosen_here = Origins.of(origins).is_default("run.dir") and not resuming
    own = _in_a_folder_of_its_own(values) if chosen_here else nullcontext(values)
    with advice_on_full_disk(folders), own as placed:
        run = RunFolder(Path(placed["run"]["dir"]), placed, origins, overrides, resuming, overwrite)
        task = bind_task(placed, {"run": lambda: run, "devices": lambda: devices_of(placed.get("trainer") or {})})
        cluster = make(placed.get("cluster"), "cluster")
        joined = nullcontext() if cluster is None else cluster.joined()
        with run, advice_on_full_disk(folders), joined:  # inside the run, whose record has the advice, too
            task()


@contextmanager
def _in_a_folder_of_its_own(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Make a folder for a run that names none, unique even for runs of the same second; return the run's values."""
    wanted = str(values["run"]["dir"])
    with unique_folder(Path(wanted)) as folder:
        placed: Mapping[str, Any] = relocated(values, wanted, str(folder))
        yield placed


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Treat a scheduler's SIGTERM as Ctrl-C: finished results are kept, and the status records the interruption."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked worker ends at once, as usual
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
