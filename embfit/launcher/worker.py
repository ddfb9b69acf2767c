"""`python -m embfit.launcher.worker JOB.json PID`: runs one job in its own process, which ends with process PID."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from embfit.launcher.distributed import on_first_rank
from embfit.launcher.prepared_job import PreparedJob
from embfit.run.console import listen, report
from embfit.run.process import termination_interrupts

SECONDS = 1.0  # between two checks that the sweep's process still exists


def main(file: str, parent: int) -> int:
    """Run a job and return embfit's exit code.

    Args:
        file: the file of the prepared job.
        parent: the id of the sweep's process, which may have ended during the imports.
    """
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    listen()
    try:
        with termination_interrupts():
            on_first_rank(PreparedJob.read(Path(file)).run)
    except BaseException as error:
        return report(error).exit_code
    return 0


def _end_with(parent: int) -> None:
    """Interrupt this process when its parent has ended, so that a resumed sweep can use the job's folder."""
    while os.getppid() == parent:
        time.sleep(SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
