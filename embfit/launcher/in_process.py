"""Jobs in this process, one after another: what a sweep does when no launcher is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from embfit.launcher.prepared import PreparedJob
from embfit.run.console import report


class InProcess:
    """Runs jobs one after another; one that fails does not end the others."""

    def launch(self, jobs: Sequence[PreparedJob], folder: Path, ended: Callable[[], None]) -> list[str | None]:
        """Run jobs; return the error of each, None for those that went well.

        Raises:
            KeyboardInterrupt: Ctrl-C; the job that ran can be gone on with.
        """
        errors = []
        for job in jobs:
            errors.append(_run(job))
            ended()
        return errors


def _run(job: PreparedJob) -> str | None:
    try:
        job.run()
    except Exception as error:
        return report(error, f"{job.name}: ").message
    return None
