from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import distributed, nn

from embfit.errors import ConfigError, UserError
from embfit.run import child_process
from embfit.run.devices import Devices, find_devices
from embfit.run.launch_environment import LaunchEnvironment, first_host, launch_environment
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


def test_devices_become_ranks() -> None:
    two = find_devices({"accelerator": "cpu", "devices": 2, "strategy": "ddp"}, None)
    assert (two.size, two.local_size, two.all) == (2, 2, ("cpu", "cpu"))
    assert two.settings({"accelerator": "cpu", "devices": 2, "strategy": "ddp", "num_nodes": 1}, 1) == {
        "accelerator": "cpu",
        "devices": 1,
        "strategy": "auto",
        "num_nodes": 1,
    }
    assert find_devices({"accelerator": "cpu", "devices": "auto", "strategy": "ddp"}, None).size == 1


@pytest.mark.parametrize("strategy", ["auto", "ddp", "single_device"])
def test_one_rank_has_no_strategy_of_several(strategy: str) -> None:
    asked = {"accelerator": "cpu", "devices": 1, "strategy": strategy, "profiler": "simple"}
    expected = {"accelerator": "cpu", "devices": 1, "strategy": "auto", "profiler": "simple", "num_nodes": 1}
    assert find_devices(asked, None).settings(asked, 0) == expected


@pytest.mark.parametrize(
    ("strategy", "devices"),
    [("fsdp", 2), ("fsdp", 1), ("deepspeed_stage_2", 2), ("ddp_spawn", 2), ("single_device", 2)],
)
def test_strategies_that_cannot_train_are_refused(strategy: str, devices: int) -> None:
    with pytest.raises(UserError, match=f"trainer.strategy={strategy} cannot train here"):
        find_devices({"accelerator": "cpu", "devices": devices, "strategy": strategy}, None)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("devices", "expected"),
    [(1, ["cuda:0"]), ([1], ["cuda:1"]), ([2, 3], ["cuda:2", "cuda:3"]), ("2", ["cuda:0", "cuda:1"])],
)
def test_the_gpus_asked_for_are_used(devices: object, expected: list[str]) -> None:
    asked = {"accelerator": "auto", "devices": devices, "strategy": "ddp"}
    layout = find_devices(asked, None)
    assert (layout.first, list(layout.all)) == (expected[0], expected)
    last = layout.settings(asked, len(expected) - 1)
    assert (last["accelerator"], last["devices"]) == ("cuda", [int(expected[-1][-1])])
    assert find_devices({"accelerator": "gpu", "devices": -1}, None).size == 4
    assert find_devices({"accelerator": "cpu", "devices": 1}, None).first == "cpu"


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize("devices", [5, [4], 0, [], "x", None, [0, 0]])
def test_gpus_that_are_not_there_are_an_error(devices: object) -> None:
    with pytest.raises(UserError, match="this machine has 4 GPUs; give a number of them"):
        find_devices({"accelerator": "auto", "devices": devices}, None)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps", "tpu"])
def test_an_accelerator_that_is_not_there_is_an_error(accelerator: str) -> None:
    with pytest.raises(UserError, match=f"trainer.accelerator={accelerator}: PyTorch finds none here"):
        find_devices({"accelerator": accelerator, "devices": 1}, None)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("devices", [[0, 1], -1, "0,1", 0])
def test_gpus_asked_of_a_cpu_are_an_error(devices: object) -> None:
    with pytest.raises(UserError, match=r"training is on the CPU here, .* set trainer.devices=1"):
        find_devices({"accelerator": "auto", "devices": devices}, None)


def test_an_apple_gpu_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    asked = {"accelerator": "auto", "devices": "auto"}
    assert find_devices(asked, None).all == ("mps",)
    assert find_devices(asked, None).settings(asked, 0)["devices"] == 1
    with pytest.raises(UserError, match="there is one Apple GPU"):
        find_devices({"accelerator": "gpu", "devices": 2}, None)


def test_more_machines_need_a_launcher() -> None:
    with pytest.raises(UserError, match="with torchrun or srun"):
        find_devices({"accelerator": "cpu", "devices": 2, "num_nodes": 2}, None)


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


def test_as_many_ranks_as_processes() -> None:
    world = LaunchEnvironment(0, 4, 0, 2, "localhost", 1234, has_store=True)
    assert find_devices({"accelerator": "cpu", "devices": 2, "num_nodes": 2}, world).size == 4
    started = "4 processes were started, 2 on a machine, and trainer.devices"
    with pytest.raises(UserError, match=rf"{started}=2 on trainer.num_nodes=1 makes 2"):
        find_devices({"accelerator": "cpu", "devices": 2}, world)
    with pytest.raises(UserError, match=rf"{started}=1 on trainer.num_nodes=4 makes 4"):
        find_devices({"accelerator": "cpu", "devices": 1, "num_nodes": 4}, world)


TORCHRUN = {
    "WORLD_SIZE": "4",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "2",
}
SLURM = {
    "SLURM_JOB_ID": "5003",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_STEP_NODELIST": "gpu[03-05,9]",
}


def test_processes_of_torchrun_and_slurm_know_their_place() -> None:
    assert launch_environment({}) is None
    assert launch_environment(TORCHRUN) == LaunchEnvironment(3, 4, 1, 2, "node0", 29500, has_store=True, attempt="2")
    assert launch_environment(TORCHRUN | {"WORLD_SIZE": "1"}) is None
    assert launch_environment(SLURM) == LaunchEnvironment(1, 2, 0, 1, "gpu03", 15_003, has_store=False)
    assert launch_environment(SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert launch_environment({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None  # a batch script, not srun


def test_half_a_launcher_is_refused() -> None:
    with pytest.raises(ConfigError, match="lacks MASTER_ADDR"):
        launch_environment({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"})


def test_nodes_with_different_numbers_of_tasks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"different numbers of tasks \(3,1\); set --ntasks-per-node"):
        launch_environment(SLURM | {"SLURM_STEP_TASKS_PER_NODE": "3,1"})


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


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu[03-05,9]", "gpu03"),
        ("a1,a2", "a1"),
        ("a,b[1-2]", "a"),
        ("n[2,7]-ib", "n2-ib"),
        ("rack[1-2]node[03-04],x", "rack1node03"),
    ],
)
def test_the_first_host(nodes: str, host: str) -> None:
    assert first_host(nodes) == host
