from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from embfit.data.trec import write_run
from embfit.errors import ConfigError
from embfit.evaluator import Retrieval
from embfit.evaluator.systems import EvaluationContext, RerankedSystem, TrecFileSystem
from embfit.evaluator.systems import reranked as module
from embfit.model import Pretrained
from embfit.records import Collection, Ranking
from embfit.store import Store
from tests.evaluator.measured import changed


class Lengths:
    """A ranker that prefers short documents, and counts the pairs that it reads."""

    fingerprint = "lengths"
    seen: list[tuple[str, str]]

    def __init__(self) -> None:
        self.seen = []

    def read(self, pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
        self.seen += pairs
        return pairs

    def score_batches(
        self, pairs: Sequence[tuple[str, str]], label: str | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield np.arange(len(pairs)), np.array([-len(document) for _, document in pairs], np.float32)


@pytest.fixture
def context(small_collection: Collection, store: Store, tmp_path: Path) -> EvaluationContext:
    run = tmp_path / "first.trec"
    write_run(run, Ranking({"q10": [("d0", 4.0), ("d1", 3.0), ("d7", 2.0), ("d10", 1.0)], "q11": []}), "first")
    systems = {
        "first": TrecFileSystem(str(run)),
        "again": RerankedSystem("first", "somewhere", top=3),
        "none": RerankedSystem("first"),
    }
    return Retrieval(systems=systems).context(small_collection, store, Pretrained("unused"))


def test_the_first_documents_are_ranked_anew_and_the_others_follow(
    context: EvaluationContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker = Lengths()
    monkeypatch.setattr(module.CrossEncoder, "load", lambda *arguments: ranker)
    found = context.evaluation("again")
    texts = list(context.collection.document_texts([0, 1, 7]))
    assert ranker.seen == [(next(iter(context.collection.query_texts([10]))), text) for text in texts]
    lengths = {"d0": -len(texts[0]), "d1": -len(texts[1]), "d7": -len(texts[2])}
    expected = sorted(lengths, key=lambda name: -lengths[name])
    assert found.ranking.documents["q10"] == [
        *((name, float(lengths[name])) for name in expected),
        ("d10", float(min(lengths.values()) - 1)),
    ]
    assert found.per_query["mrr@10"]["q10"] == 1 / 4
    assert (found.facts["pairs"], found.facts["of"]) == (3, "first")
    again = changed(context, store=Store(context.store.dir)).evaluation("again")
    assert again.ranking == found.ranking
    assert len(ranker.seen) == 3  # scores come from the store


def test_a_cross_encoder_must_be_named(context: EvaluationContext) -> None:
    with pytest.raises(ConfigError, match=r"evaluator.systems.none.path=FOLDER_OR_NAME"):
        context.evaluation("none")
