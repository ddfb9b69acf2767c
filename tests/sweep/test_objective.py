import pytest

from embfit.errors import ConfigError
from embfit.sweep.objective import Aim, aims, read_objective

REPORT = {
    "systems": {"tuned": {"metrics": {"ndcg@10": 0.7}}},
    "training": {"history": [{"step": 0, "ndcg@10": 0.5}, {"step": 4, "ndcg@10": 0.6}, {"step": 8, "ndcg@10": 0.55}]},
    "timings": {"train": 12},
}


@pytest.mark.parametrize(
    ("objective", "value"),
    [
        ("dev.ndcg@10", 0.6),
        ("dev.mrr@10", None),
        ("systems.tuned.metrics.ndcg@10", 0.7),
        ("timings.train", 12.0),
        ("systems.tuned", None),
        ("nowhere.to", None),
    ],
)
def test_where_it_is(objective, value):
    assert read_objective(objective, REPORT, {}, None) == value
    assert read_objective(objective, {}, {}, None) is None


def test_minutes_and_settings():
    assert read_objective("minutes", {}, {}, 2.5) == 2.5
    assert read_objective("config.model.size", {}, {"model": {"size": 384}}, None) == 384.0
    assert read_objective("config.model.name", {}, {"model": {"name": "x"}}, None) is None


def test_a_direction_for_each_objective():
    assert aims("dev.x", "minimize") == (Aim("dev.x", "minimize"),)
    both = aims(["dev.x", "minutes"], ["maximize", "minimize"])
    assert [aim.sign for aim in both] == [-1, 1]
    with pytest.raises(ConfigError, match=r"sweep.objective names 2 and sweep.direction 1; give each"):
        aims(["dev.x", "minutes"], "maximize")
