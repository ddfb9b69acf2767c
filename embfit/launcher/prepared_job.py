"""A job that is ready to run anywhere; `worker` is the program that runs one in its own process."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from embfit.atomic_files import write_text
from embfit.errors import Pruned
from embfit.run.child_process import module_path

log = logging.getLogger(__name__)

PATH = "PYTHONPATH"
JOBS = ".jobs"  # folder in the sweep's folder with each prepared job and the output of its process


@contextmanager
def inherited_module_path() -> Iterator[None]:
    """Let processes that start in the block import the modules that this one can, such as a checkout's or a pack's."""
    before = os.environ.get(PATH)
    os.environ[PATH] = module_path()
    try:
        yield
    finally:
        if before is None:
            del os.environ[PATH]
        else:
            os.environ[PATH] = before


@dataclass(frozen=True)
class PreparedJob:
    """One job of a sweep.

    Args:
        number: the job's number, which is also the name of its folder.
        values: the resolved and checked configuration.
        provenance: where each value was written, in the form that `Origins.record` returns.
        overrides: the overrides that compose the configuration, for the run's record.
    """

    number: int
    values: Mapping[str, Any]
    provenance: Mapping[str, Any]
    overrides: Sequence[str]

    @property
    def dir(self) -> Path:
        """The run folder."""
        return Path(self.values["run"]["dir"])

    @property
    def name(self) -> str:
        """The job's name in messages."""
        return f"job {self.number} ({', '.join(self.overrides)})"

    def write(self, folder: Path) -> Path:
        """Write the job into a sweep's folder and return the file."""
        file = folder / JOBS / f"{self.number}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(asdict(self), ensure_ascii=False))
        return file

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a job that `write` wrote."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))

    def run(self) -> None:
        """Run the job in this process. An earlier attempt of the same job is resumed; one of another job is discarded.

        Raises:
            Exception: whatever the task raises, after the run folder has recorded it.
        """
        from embfit.compose.value_origins import Origins
        from embfit.run.process import perform

        try:
            perform(self.values, Origins.read(self.provenance), self.overrides, overwrite=True)
        except Pruned as end:
            log.info("%s was pruned: %s", self.name, end)
