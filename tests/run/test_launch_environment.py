"""What processes read of the launcher that has started them."""

from __future__ import annotations

import pytest

from embfit.errors import ConfigError
from embfit.run.launch_environment import LaunchEnvironment, first_host, launch_environment

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
