"""Encodes texts in several processes of one machine, one for each device, with the same vectors as in one process.

Each process encodes every n-th batch of one plan and writes its rows into a common matrix, so the processes need no
communication. `python -m embfit.model.multiprocess_encoding JOB PART` is one of them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from embfit.errors import UserError
from embfit.model.encoder import Encoder
from embfit.model.encoding import encode_into
from embfit.run.child_process import ChildProcess
from embfit.tokens import Tokens, plan_batches

log = logging.getLogger(__name__)

SHARED_FROM = 8192  # texts; fewer are encoded before another process has started
RELIEF = "lower trainer.devices"


@dataclass(frozen=True)
class EncodingJob:
    """A job of encoding for several processes.

    Args:
        encoder: the encoder, in each process on its own device.
        tokens: N texts, with their prompts.
        token_budget: the padded tokens of a batch, on every device.
        folder: the folder of the matrix.
        label: the label of the progress.
        devices: one device for each process, this one's first.
        threads: the number of threads of each process on a CPU.
    """

    encoder: Encoder
    tokens: Tokens
    token_budget: int
    folder: Path
    label: str
    devices: tuple[str, ...]
    threads: int

    def encode(self, encoder: Encoder, part: int) -> None:
        """Encode one process's part with the encoder on its device."""
        plan = plan_batches(self.tokens.lengths, self.token_budget)
        encode_into(self.folder, encoder, self.tokens, plan, self.label, part, len(self.devices))


def encode_shared(folder: Path, encoder: Encoder, tokens: Tokens, label: str) -> None:
    """Embed tokenised texts into the folder's matrix, with further processes on the encoder's further devices.

    Args:
        folder: the folder of the matrix and of each process's progress.
        encoder: the encoder, which names the devices of all processes.
        tokens: N texts, with their prompts.
        label: the label of the progress of this process.

    Raises:
        UserError: another process failed; encoded vectors are kept.
    """
    devices = encoder.devices if len(tokens) >= SHARED_FROM else encoder.devices[:1]
    before = torch.get_num_threads()
    job = EncodingJob(encoder, tokens, encoder.token_budget, folder, label, devices, max(1, before // len(devices)))
    if len(devices) == 1:
        job.encode(encoder, 0)
        return
    log.info("%s in %d processes", label, len(devices))
    with _others(job) as children:
        try:
            torch.set_num_threads(job.threads if encoder.device.type == "cpu" else before)
            job.encode(encoder, 0)
        finally:
            torch.set_num_threads(before)
        for part, child in children.items():
            if child.failed():
                raise UserError(
                    f"process {part} of {len(devices)} failed while encoding: {child.error_summary(RELIEF)}"
                )


@contextmanager
def _others(job: EncodingJob) -> Iterator[dict[int, ChildProcess]]:
    """Start the other processes, which end with the block."""
    path = job.folder / "job.pt"
    torch.save(job, path)
    children: dict[int, ChildProcess] = {}
    try:
        for part in range(1, len(job.devices)):
            words = job.folder / f"process-{part}.txt"
            children[part] = ChildProcess.start("embfit.model.multiprocess_encoding", [str(path), str(part)], words)
        yield children
    finally:
        for child in children.values():
            child.end()
        path.unlink(missing_ok=True)


def main(arguments: list[str]) -> None:
    """Encode one part of a job."""
    path, part = Path(arguments[0]), int(arguments[1])
    job: EncodingJob = torch.load(path, map_location="cpu", weights_only=False)  # the first process has written it
    device = torch.device(job.devices[part])
    if device.type == "cpu":
        torch.set_num_threads(job.threads)
    job.encode(job.encoder.to(device), part)


if __name__ == "__main__":
    main(sys.argv[1:])
