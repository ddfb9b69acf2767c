"""The estimate of false negatives, by hand: what is hidden, and what is counted when it comes back."""

from __future__ import annotations

import pytest

from embfit.miner import BM25Miner, NoNegatives, closest_examples
from embfit.miner.false_negative_estimate import FalseNegatives, estimate, hide
from embfit.model import Encoder
from embfit.records import Collection, TrainingSet
from embfit.store import Store
from tests.conftest import make_collection

DOCUMENTS = {"a": "red fox", "b": "red foxes run", "c": "red car", "d": "red fox", "e": "blue", "f": "green"}


def judged(**positives: str) -> Collection:
    """Queries with their positives, a letter each; x is judged not relevant."""
    queries = dict.fromkeys(positives, "red fox")
    qrels = {query: {**dict.fromkeys(names, 1), "f": 0} for query, names in positives.items()}
    return make_collection(
        DOCUMENTS, {name: f"{text} {name}" for name, text in queries.items()}, {"train": qrels, "test": {}}
    )


def test_copies_are_hidden_together_and_one_positive_is_left() -> None:
    collection = judged(one="a", copies="ad", two="ab", three="adbe")
    for seed in range(5):
        left, hidden = hide(collection, 0.9, seed)
        assert set(left) == set(hidden) == {"two", "three"}  # a and d are one text
        assert hidden["two"] in ({"a"}, {"b"})
        assert len(hidden["three"] - {"d"}) == 2
        assert ("a" in hidden["three"]) == ("d" in hidden["three"])
        assert left["three"].keys() == set("adbef") - hidden["three"]
    assert hide(collection, 0.5, 3) == hide(collection, 0.5, 3)


def test_hidden_positives_that_are_mined_are_counted(store: Store, tiny_encoder: Encoder) -> None:
    """Of `a b` one is hidden, and BM25 ranks it first or second of all that has a word of the query; of `c e`, `e` has
    none, so it is never found; when `c` is hidden it is."""
    miner = BM25Miner(negatives=2, depth=6)

    def mine(collection: Collection) -> TrainingSet:
        return miner.mine(collection, tiny_encoder, store)

    found = estimate(mine, judged(two="ab"), 0.5, seed=0)
    assert (found.queries, found.hidden, found.taken) == (1, 1, 1)
    assert found.facts["share_of_hidden"] == 1.0
    assert found.facts["share_of_mined"] == 1 / found.mined
    taken = {seed: estimate(mine, judged(two="ce"), 0.5, seed).taken for seed in range(6)}
    hidden = {seed: hide(judged(two="ce"), 0.5, seed)[1]["two"] for seed in range(6)}
    assert {*hidden.values()} == {frozenset("c"), frozenset("e")}
    deep = BM25Miner(negatives=5, depth=6)
    for seed, names in hidden.items():
        again = estimate(lambda changed: deep.mine(changed, tiny_encoder, store), judged(two="ce"), 0.5, seed)
        assert again.taken == (names == {"c"})
        assert taken[seed] <= again.taken


def test_without_several_positives_nothing_is_hidden(store: Store, tiny_encoder: Encoder) -> None:
    found = estimate(lambda changed: pytest.fail("mined"), judged(one="a", copies="ad"), 0.5, 0)
    assert found == FalseNegatives(0, 0, 0, 0)
    assert found.facts["share_of_hidden"] is None


def test_the_closest_negatives_come_first(store: Store, tiny_encoder: Encoder) -> None:
    collection = make_collection(
        {"a": "red fox", "b": "red car and much else besides", "c": "green fox", "d": "green fox " + "word " * 99},
        {"far": "red fox", "near": "green fox", "none": "unheard"},
        {"train": {"far": {"a": 1}, "near": {"d": 1}, "none": {"b": 1}}},
    )
    training_set = BM25Miner(negatives=1, depth=4).mine(collection, tiny_encoder, store)
    shown = closest_examples(training_set, 3)
    assert [example["query"]["id"] for example in shown] == ["near", "far", "none"]
    assert shown[0]["negatives"][0]["score"] > shown[0]["positives"][0]["score"]
    assert len(shown[0]["positives"][0]["text"]) == 401
    assert [example["query"]["id"] for example in closest_examples(training_set, 1)] == ["near"]
    nothing = NoNegatives().mine(collection, tiny_encoder, store)
    assert [example["query"]["id"] for example in closest_examples(nothing, 2)] == ["far", "near"]
