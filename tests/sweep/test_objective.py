import pytest

from embfit.sweep.objective import read_objective

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
    assert read_objective(REPORT, objective) == value
    assert read_objective({}, objective) is None
