from __future__ import annotations

import pytest
import torch
from torch import nn

from embfit.errors import ConfigError, UserError
from embfit.training.layout import plan
from embfit.training.ranks import Ranks, deal
from embfit.world import World, first_host, launched


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
    two = plan({"accelerator": "cpu", "devices": 2, "strategy": "ddp"}, None)
    assert (two.size, two.local_size) == (2, 2)
    assert two.settings({"accelerator": "cpu", "devices": 2, "strategy": "ddp", "num_nodes": 1}, 1) == {
        "accelerator": "cpu",
        "devices": 1,
        "strategy": "auto",
        "num_nodes": 1,
    }
    assert plan({"accelerator": "cpu", "devices": "auto", "strategy": "ddp"}, None).size == 1


def test_one_device_is_lightnings_own_affair() -> None:
    asked = {"accelerator": "cpu", "devices": 1, "strategy": "single_device"}
    assert plan(asked, None).settings(asked, 0) == asked


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2", "ddp_spawn"])
def test_strategies_that_cannot_train_are_refused(strategy: str) -> None:
    with pytest.raises(UserError, match=f"trainer.strategy={strategy} cannot train here"):
        plan({"accelerator": "cpu", "devices": 2, "strategy": strategy}, None)


def test_more_machines_need_a_launcher() -> None:
    with pytest.raises(UserError, match="with torchrun or srun"):
        plan({"accelerator": "cpu", "devices": 2, "num_nodes": 2}, None)


def test_as_many_ranks_as_processes() -> None:
    world = World(0, 4, 0, "localhost", 1234, has_store=True)
    assert plan({"accelerator": "cpu", "devices": 2, "num_nodes": 2}, world).size == 4
    with pytest.raises(
        UserError, match=r"4 processes were started, and trainer.devices=2 on trainer.num_nodes=1 makes 2"
    ):
        plan({"accelerator": "cpu", "devices": 2}, world)


TORCHRUN = {
    "WORLD_SIZE": "4",
    "RANK": "3",
    "LOCAL_RANK": "1",
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
    "SLURM_STEP_NODELIST": "gpu[03-05,9]",
}


def test_processes_of_torchrun_and_slurm_know_their_place() -> None:
    assert launched({}) is None
    assert launched(TORCHRUN) == World(3, 4, 1, "node0", 29500, has_store=True, attempt="2")
    assert launched(TORCHRUN | {"WORLD_SIZE": "1"}) is None
    assert launched(SLURM) == World(1, 2, 0, "gpu03", 15_003, has_store=False)
    assert launched(SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert launched({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None  # a batch script, not srun


def test_half_a_launcher_is_refused() -> None:
    with pytest.raises(ConfigError, match="lacks MASTER_ADDR"):
        launched({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"})


@pytest.mark.parametrize(
    ("nodes", "host"), [("gpu[03-05,9]", "gpu03"), ("a1,a2", "a1"), ("a,b[1-2]", "a"), ("n[2,7]-ib", "n2-ib")]
)
def test_the_first_host(nodes: str, host: str) -> None:
    assert first_host(nodes) == host
