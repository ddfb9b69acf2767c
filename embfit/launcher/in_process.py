"""Jobs in this process, one after another: the way a sweep runs if no launcher is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from embfit.launcher.prepared_job import PreparedJob
from embfit.run.console import report


class InProcess:
    """Runs jobs one after another; if one fails, the others still run."""

    def launch(self, jobs: Sequence[PreparedJob], folder: Path, ended: Callable[[], None]) -> list[str | None]:
        """Run jobs and return the error of each; None for those that ended well.

        Raises:
            KeyboardInterrupt: the user pressed Ctrl-C; the job that was running can be resumed.
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
