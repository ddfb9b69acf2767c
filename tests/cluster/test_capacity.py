"""The number of workers that a cluster has room for, or the numbers by which there is none."""

from __future__ import annotations

import pytest

from embfit.cluster.capacity import number_of_workers
from embfit.errors import UserError

MACHINES = [{"CPU": 8.0, "GPU": 2.0, "memory": 32e9}, {"CPU": 3.0, "memory": 8e9}]


@pytest.mark.parametrize(
    ("each", "workers"),
    [
        ({"CPU": 1.0, "GPU": 0.0}, 11),
        ({"CPU": 2.0}, 5),  # four and one: no worker is cut in two
        ({"CPU": 1.0, "GPU": 0.5}, 4),
        ({"CPU": 1.0, "memory": 6e9}, 6),
        ({"CPU": 0.1}, 110),
    ],
)
def test_as_many_as_fit(each: dict[str, float], workers: int) -> None:
    assert number_of_workers(MACHINES, each, None) == workers
    assert number_of_workers(MACHINES, each, 2) == 2


@pytest.mark.parametrize(
    ("each", "wanted", "message"),
    [
        (
            {"CPU": 2.0, "GPU": 0.0},
            6,
            "cluster.workers=6 with 2 CPUs each: the cluster has room for 5; its machines (2) have 8, 3 CPUs; lower "
            "cluster.workers, cluster.cpus, or add machines",
        ),
        (
            {"CPU": 1.0, "GPU": 4.0},
            None,
            "a worker with 1 CPUs and 4 GPUs each: the cluster has room for 0; its machines (2) have 8, 3 CPUs, 2, 0 "
            "GPUs; lower cluster.cpus, cluster.gpus, or add machines",
        ),
        (
            {"CPU": 1.0, "memory": 40e9, "fast": 1.0},
            1,
            "cluster.workers=1 with 1 CPUs and 40 GB of memory and 1 fast each: the cluster has room for 0; its "
            "machines (2) have 8, 3 CPUs, 32, 8 GB of memory, 0, 0 fast; lower cluster.cpus, cluster.memory_gb, "
            "cluster.resources, or add machines",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(
    each: dict[str, float], wanted: int | None, message: str
) -> None:
    with pytest.raises(UserError) as error:
        number_of_workers(MACHINES, each, wanted)
    assert str(error.value) == message
