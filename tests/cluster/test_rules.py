"""What a cluster asks of the rest of a configuration."""

from __future__ import annotations

import pytest

from embfit.compose.composition import resolve_all
from embfit.compose.loader import make_loader
from embfit.compose.preflight import check
from embfit.errors import ConfigError


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["task=serve", "bundle.name=x"], "^cluster: task=serve computes on this machine alone; leave the cluster out"),
        (["task=evaluate", "model.backend=onnx"], r"^model\.backend: onnx is a file in this machine's store, which"),
        (["task=evaluate", "cluster.cpus=0"], r"^cluster\.cpus: expected a number above 0, got 0"),
    ],
)
def test_what_does_not_go_with_a_cluster_is_refused(overrides: list[str], told: str) -> None:
    loader = make_loader()
    values, origins = resolve_all(loader, ["cluster=ray", *overrides])
    with pytest.raises(ConfigError, match=told):
        check(values, origins, loader.groups())


def test_tasks_that_compute_take_one() -> None:
    loader = make_loader()
    for task in ("finetune", "assess", "generate", "mine", "evaluate", "index"):
        overrides = [f"task={task}", "cluster=ray", "bundle.name=x"]
        overrides += ["generator=extractive"] if task == "generate" else []
        values, origins = resolve_all(loader, overrides)
        check(values, origins, loader.groups())
