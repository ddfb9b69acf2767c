"""What is free, and how much of it graphs take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from embfit.loss import InfoNCE
from embfit.model import Encoder
from embfit.training.ranks.collectives import Ranks
from embfit.training.step import gradients
from embfit.training.step.gradients import BatchGradients, ComputeSettings
from embfit.training.step.memory import GraphLimit, free_bytes
from embfit.training.step.memory_limit import bytes_left


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def member(root: Path, *lines: str) -> Path:
    group(root / "proc/self", cgroup="\n".join(lines))
    return root / "sys/fs/cgroup"


def test_the_tightest_group_around_a_process_counts(tmp_path: Path) -> None:
    mount = member(tmp_path, "0::/slurm/job_7/step_0")
    group(mount / "slurm/job_7/step_0", memory__max="max", memory__current=10, memory__stat="inactive_file 3")
    group(mount / "slurm/job_7", memory__max=1000, memory__current=400, memory__stat="anon 90\ninactive_file 150")
    group(mount / "slurm", memory__max=9000, memory__current=700, memory__stat="inactive_file 0")
    assert bytes_left(tmp_path) == 750  # of 1,000, less 400, of which 150 can be given back


def test_a_container_that_sees_its_own_group_alone(tmp_path: Path) -> None:
    mount = member(tmp_path, "0::/")
    group(mount, memory__max=500, memory__current=450, memory__stat="inactive_file 20")
    assert bytes_left(tmp_path) == 70


def test_the_older_interface(tmp_path: Path) -> None:
    mount = member(tmp_path, "9:cpu,cpuacct:/job", "4:memory:/job/unseen", "0::/")
    names = {"memory__limit_in_bytes": 800, "memory__usage_in_bytes": 900, "memory__stat": "total_inactive_file 40"}
    group(mount / "memory/job", **names)
    assert bytes_left(tmp_path) == 0
    group(mount / "memory/job", **(names | {"memory__usage_in_bytes": 600}))
    assert bytes_left(tmp_path) == 240


def test_no_limit_is_none(tmp_path: Path) -> None:
    assert bytes_left(tmp_path) == sys.maxsize
    member(tmp_path, "0::/job")
    assert bytes_left(tmp_path) == sys.maxsize


def test_what_pytorch_keeps_of_a_gpu_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 999))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    assert free_bytes(torch.device("cuda")) == 130


def test_gradients_and_moments_come_out_of_what_is_free(
    make_encoder: Callable[..., Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what they leave is for graphs; a run that goes on has its moments already."""
    monkeypatch.setattr(gradients, "free_bytes", lambda device: 10_000_000)
    encoder, compute = make_encoder(), ComputeSettings(40, None, False, "fp32", 0)
    weights = 4 * sum(weight.numel() for weight in encoder.parameters())

    def spare(ranks: Ranks, resumed: bool) -> float:
        return BatchGradients(encoder, InfoNCE(), compute, ranks, resumed)._spare_bytes()

    assert spare(Ranks(), resumed=False) == 10_000_000 - 3 * weights
    assert spare(Ranks(), resumed=True) == 10_000_000 - weights
    assert spare(Ranks(0, 2, here=2), resumed=True) == 5_000_000 - weights
    encoder.requires_grad_(False)
    assert spare(Ranks(), resumed=False) == 10_000_000


def test_longer_inputs_are_measured_again() -> None:
    limit, measured = GraphLimit(1000), []

    def kept(areas: list[int], longest: int, size: int) -> int:
        return limit.kept(areas, longest, lambda: measured.append(longest) or size)

    assert kept([10, 10, 10], 100, 400) == 2  # 40 a token: 400, 800, 1,200
    assert kept([10, 10, 10], 120, 400) == 2  # hardly longer
    assert kept([10, 5, 5], 200, 800) == 1  # 80 a token: 800, 1,200
    assert kept([10, 10, 10], 50, 400) == 1  # 80 is what is reckoned with from now on
    assert measured == [100, 200]
