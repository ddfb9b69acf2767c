from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import distributed, nn

from embfit.run import child_process
from embfit.run.devices import Devices
from embfit.training.fit.loop import Job
from embfit.training.ranks import launch, worker
from embfit.training.ranks.collectives import Ranks, deal


def test_dear_pieces_are_dealt_first() -> None:
    assert deal([9, 8, 4, 4, 3], 2) == [[0, 3], [1, 2, 4]]  # 13 and 15
    assert deal([5, 5], 3) == [[0], [1], []]


def test_one_rank_has_everything_in_order() -> None:
    assert deal([1, 3, 2], 1) == [[0, 1, 2]]
    assert Ranks().share([1, 3, 2]) == [0, 1, 2]


def test_alone_nothing_changes() -> None:
    weight, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), 3.0)
    ranks = Ranks()
    ranks.sum_gradients([weight, other])
    ranks.sum(weight.grad)
    assert weight.grad.tolist() == [3, 3]
    assert ranks.reached([weight, other])[0] is weight
    assert len(ranks.reached([weight, other])) == 1
    assert other.grad is None
    assert (ranks.agree(True), ranks.agree(False)) == (True, False)


class Child:
    """Stands for the process of another rank, which would train on and on."""

    def __init__(self, done: list[str]) -> None:
        self.done = done

    def wait(self, timeout: float | None = None) -> int:
        self.done.append("end" if timeout is None else "wait")
        return 0

    def kill(self) -> None:
        """The process is over when it is waited for."""


@pytest.mark.parametrize(
    ("fails", "backend", "expected"),
    [
        (False, "gloo", ["leave", "wait", "end"]),
        (True, "gloo", ["wait", "end", "leave"]),
        (False, "nccl", ["leave", "wait", "end"]),
        (True, "nccl", ["wait", "end", "abort", "leave"]),
    ],
)
def test_after_a_failure_the_others_are_ended_before_the_group_is_left(
    fails: bool, backend: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And what was queued on GPUs is given up: leaving would wait for it."""
    done: list[str] = []
    monkeypatch.setattr(child_process.subprocess, "Popen", lambda *command, **settings: Child(done))
    monkeypatch.setattr(launch, "await_ranks", lambda store, size, look: None)
    monkeypatch.setattr(distributed, "init_process_group", lambda *names, **settings: None)
    monkeypatch.setattr(distributed, "new_group", lambda **settings: None)
    monkeypatch.setattr(distributed, "is_initialized", lambda: "leave" not in done)
    monkeypatch.setattr(distributed, "get_backend", lambda: backend)
    queue = SimpleNamespace(_get_backend=lambda device: SimpleNamespace(abort=lambda: done.append("abort")))
    monkeypatch.setattr(distributed, "group", SimpleNamespace(WORLD=queue))
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: done.append("leave"))
    with suppress(KeyError), launch.launch_ranks(Job(nn.Identity(), {}, 1, tmp_path), Devices(("cpu", "cpu"))):
        if fails:
            raise KeyError
    assert done == expected
    assert not (tmp_path / "job.pt").exists()


def test_a_rank_computes_on_the_device_of_its_place_on_its_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Under `srun --distribution=cyclic` rank 1 of four is the first on the second machine."""
    job = Job(nn.Identity(), {}, 3, tmp_path)
    torch.save(launch.RankJob(job, Devices(("cuda:4", "cuda:5"), nodes=2), threads=1), tmp_path / "job.pt")
    taken: list[object] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(distributed, "init_process_group", lambda *names, **settings: taken.append(settings["rank"]))
    monkeypatch.setattr(distributed, "new_group", lambda **settings: None)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: taken.append("left"))
    monkeypatch.setattr(worker, "arrive", lambda store, rank: True)
    monkeypatch.setattr(worker, "run", lambda job, ranks: taken.append(job.settings["devices"]))
    worker.train_as_rank(tmp_path / "job.pt", (1, 0), None)
    assert taken == [torch.device("cuda:4"), 1, [4], "left"]
