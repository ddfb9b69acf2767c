import pytest

from embfit.errors import ConfigError
from embfit.sweep.objective import Objective, numbers, pair_objectives, read_objective, unknown_objectives

REPORT = {
    "systems": {"tuned": {"metrics": {"ndcg@10": 0.7}}},
    "training": {
        "kept_step": 4,
        "history": [{"step": 0, "ndcg@10": 0.5}, {"step": 4, "ndcg@10": 0.6}, {"step": 8, "ndcg@10": 0.55}],
    },
    "timings": {"train": 12},
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dev.ndcg@10", 0.6),
        ("dev.mrr@10", None),
        ("systems.tuned.metrics.ndcg@10", 0.7),
        ("timings.train", 12.0),
        ("systems.tuned", None),
        ("nowhere.to", None),
    ],
)
def test_where_it_is(name, value):
    assert read_objective(name, REPORT, {}, None) == value
    assert read_objective(name, {}, {}, None) is None


def test_minutes_and_settings():
    assert read_objective("minutes", {}, {}, 2.5) == 2.5
    assert read_objective("config.model.size", {}, {"model": {"size": 384}}, None) == 384.0
    assert read_objective("config.model.name", {}, {"model": {"name": "x"}}, None) is None


def test_a_direction_for_each_objective():
    assert pair_objectives("dev.x", "minimize") == (Objective("dev.x", "minimize"),)
    both = pair_objectives(["dev.x", "minutes"], ["maximize", "minimize"])
    assert [objective.sign for objective in both] == [-1, 1]
    with pytest.raises(ConfigError, match=r"sweep.objective has 2 entries and sweep.direction has 1; give each"):
        pair_objectives(["dev.x", "minutes"], "maximize")


def test_what_a_report_has():
    assert numbers(REPORT) == ["dev.ndcg@10", "systems.tuned.metrics.ndcg@10", "timings.train"]
    assert numbers({}) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dev.ndcg@10", None),
        ("dev.mrr@5", None),
        ("dev.ndcg@10/64", None),
        ("dev.ndgc@10", "dev.ndgc@10: no such metric is measured; did you mean 'dev.ndcg@10'?"),
        ("config.training.epochs", None),
        ("config.miner.depth", None),  # of one of the jobs
        (
            "config.training.epocs",
            "config.training.epocs: there is no number at this key; did you mean 'config.training.epochs'?",
        ),
        ("minutes", None),
        ("systems.tuned.metrics.ndgc@10", None),  # the report will tell
    ],
)
def test_what_no_job_can_have(name, told):
    evaluator = {"_target_": "embfit.evaluator.Retrieval", "metrics": ["mrr@5"], "dims": [64]}
    configs = [{"evaluator": evaluator, "training": {"epochs": 1}}]
    configs.append({**configs[0], "miner": {"depth": 5}})
    found = [str(problem) for problem in unknown_objectives(pair_objectives(name, "maximize"), configs, "command line")]
    assert found == ([f"sweep.objective: {told} (command line)"] if told else [])
    assert not [*unknown_objectives(pair_objectives("dev.anything", "maximize"), [{"training": {}}], "")]  # who knows?
