"""`python -m embfit.launcher.worker JOB.json`: one job in a process of its own, which ends with the sweep's."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from embfit.console import listen, report
from embfit.launcher.prepared import Prepared
from embfit.process import as_launched, termination_interrupts

SECONDS = 1.0  # between two looks at whether the sweep is still there


def main(file: str) -> int:
    """Run a job; return embfit's exit code."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    listen()
    try:
        with termination_interrupts():
            as_launched(Prepared.read(Path(file)).run)
    except BaseException as error:
        return report(error).exit_code
    return 0


def _end_with(parent: int) -> None:
    """Interrupt this process when its parent is gone, killed perhaps: the sweep will want to go on in its folder."""
    while os.getppid() == parent:
        time.sleep(SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
