"""Where the ranks of a training compute, by the trainer's settings and what the machine has."""

from __future__ import annotations

import pytest
import torch

from embfit.errors import UserError
from embfit.run.devices import find_devices
from embfit.run.launch_environment import LaunchEnvironment


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
    assert not find_devices({"accelerator": "cpu", "devices": 2, "strategy": "ddp"}, None).sharded
    assert find_devices({"accelerator": "cpu", "devices": 2, "strategy": "fsdp"}, None).sharded


@pytest.mark.parametrize("strategy", ["auto", "ddp", "single_device"])
def test_one_rank_has_no_strategy_of_several(strategy: str) -> None:
    asked = {"accelerator": "cpu", "devices": 1, "strategy": strategy, "profiler": "simple"}
    expected = {"accelerator": "cpu", "devices": 1, "strategy": "auto", "profiler": "simple", "num_nodes": 1}
    assert find_devices(asked, None).settings(asked, 0) == expected


@pytest.mark.parametrize(
    ("strategy", "devices"),
    [
        ("fsdp_cpu_offload", 2),
        ("fsdp_cpu_offload", 1),
        ("deepspeed_stage_2", 2),
        ("ddp_spawn", 2),
        ("single_device", 2),
    ],
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
    found = find_devices(asked, None)
    assert (found.first, list(found.all)) == (expected[0], expected)
    last = found.settings(asked, len(expected) - 1)
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


def test_as_many_ranks_as_processes() -> None:
    world = LaunchEnvironment(0, 4, 0, 2, "localhost", 1234, has_store=True)
    assert find_devices({"accelerator": "cpu", "devices": 2, "num_nodes": 2}, world).size == 4
    started = "4 processes were started, 2 on a machine, and trainer.devices"
    with pytest.raises(UserError, match=rf"{started}=2 on trainer.num_nodes=1 makes 2"):
        find_devices({"accelerator": "cpu", "devices": 2}, world)
    with pytest.raises(UserError, match=rf"{started}=1 on trainer.num_nodes=4 makes 4"):
        find_devices({"accelerator": "cpu", "devices": 1, "num_nodes": 4}, world)
