"""A job that is ready to run anywhere; `worker` is the program that runs one in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from embfit.errors import Pruned
from embfit.store import write_text

log = logging.getLogger(__name__)

PATH = "PYTHONPATH"
JOBS = ".jobs"  # in the sweep's folder: each job as it was prepared, and what its process said


@contextmanager
def findable() -> Iterator[None]:
    """Let processes that are started meanwhile find the modules that this one does, a checkout's or a pack's."""
    before = os.environ.get(PATH)
    os.environ[PATH] = os.pathsep.join(path for path in sys.path if path)
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
        number: names its folder.
        values: the resolved and checked configuration.
        provenance: where each value was written, as `Origins.record` tells it.
        overrides: that compose it, for the record.
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
        """What a user calls it."""
        return f"job {self.number} ({', '.join(self.overrides)})"

    def write(self, folder: Path) -> Path:
        """Write it into a sweep's folder; return the file."""
        file = folder / JOBS / f"{self.number}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(asdict(self), ensure_ascii=False))
        return file

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read what `write` wrote."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))

    def run(self) -> None:
        """Run it in this process, going on with what an earlier attempt left; it begins anew if that was another job.

        Raises:
            Exception: whatever the task raises; the run folder has recorded it.
        """
        from embfit.compose.origins import Origins
        from embfit.run.process import perform

        try:
            perform(self.values, Origins.read(self.provenance), self.overrides, overwrite=True)
        except Pruned as end:
            log.info("%s is pruned: %s", self.name, end)
