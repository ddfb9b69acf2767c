"""The miners on small collections: worked examples, what is never a negative, and what the store reuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from embfit.errors import ConfigError, UserError
from embfit.miner import BM25Miner, DenseMiner, NoNegatives, RandomMiner, dense
from embfit.miner import examples as examples_module
from embfit.miner.training_set import SCHEMA
from embfit.model import Encoder, Pretrained, save_encoder
from embfit.records import Collection, Embeddings, TrainingSet
from embfit.store import Store
from embfit.vectors import Vectors
from tests.conftest import make_collection

Miner = NoNegatives | RandomMiner | BM25Miner | DenseMiner


class GivenVectors:
    """An encoder whose vectors are given: one for each document, one for each query."""

    def __init__(self, documents: np.ndarray, queries: np.ndarray, fingerprint: str = "vectors") -> None:
        self.matrices = {"document": documents.astype(np.float32), "query": queries.astype(np.float32)}
        self.made_by = fingerprint

    def fingerprint(self, kind: str) -> str:
        return self.made_by

    def embed(self, collection: Collection, kind: str, rows: list[int] | None) -> Embeddings:
        matrix = self.matrices[kind]
        return Embeddings(Vectors(matrix if rows is None else matrix[rows]), self.made_by)


@pytest.fixture
def given_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    def embed(
        encoder: GivenVectors, collection: Collection, kind: str, store: Store, rows: list[int] | None = None
    ) -> Embeddings:
        return encoder.embed(collection, kind, rows)

    monkeypatch.setattr(dense, "embed", embed)


def at(*degrees: float) -> np.ndarray:
    """Unit vectors at angles: their inner product is the cosine of the difference."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


CIRCLE = {"a": "one", "b": "two", "c": "three", "d": "one", "e": "five", "f": "six"}  # d is a copy of a
ANGLES = at(0, 10, 20, 0, 60, 90)


def circle(judgements: dict[str, int], **splits: dict[str, int]) -> Collection:
    qrels = {"train": {"q": judgements}, **{split: {"q": judged} for split, judged in splits.items()}}
    return make_collection(CIRCLE, {"unused": "nothing", "q": "what is one"}, qrels)


def mined(miner: DenseMiner, collection: Collection, store: Store, query: float) -> dict[str, object]:
    encoder = GivenVectors(ANGLES, at(180, query))
    training_set = miner.mine(collection, encoder, store)  # type: ignore[arg-type]
    (row,) = training_set.rows
    return {**row, "facts": training_set.facts, "relevant": training_set.relevant}


@pytest.mark.usefixtures("given_vectors")
def test_dense_by_hand(store: Store) -> None:
    """The query lies at 4°: nearest to its positive `a`, then to `b` (6° off), `c` (16°), `e` (56°) and `f` (86°)."""
    row = mined(DenseMiner(negatives=3, depth=6, relative_margin=None), circle({"a": 1}), store, query=4)
    cosines = np.cos(np.deg2rad([6, 16, 56]))  # b, c, e; a is the positive and d its copy
    assert row["query"] == 1
    assert row["positives"] == [0]
    assert row["negatives"] == [1, 2, 4]
    assert row["negative_ranks"] == [3, 4, 5]  # in the whole corpus: a, d, b, c, e, f
    np.testing.assert_allclose(row["negative_scores"], cosines, atol=1e-6)
    np.testing.assert_allclose(row["positive_scores"], [np.cos(np.deg2rad(4))], atol=1e-6)
    assert row["negative_sources"] == ["dense"] * 3
    assert (row["scores"], row["weight"], row["source"]) == ([], 1.0, "dense")
    assert row["relevant"] == {1: frozenset({0})}


@pytest.mark.usefixtures("given_vectors")
def test_dense_margins_by_hand(store: Store) -> None:
    """`a` scores 0.998. 95 % of it is 0.948, below `c` (0.961); 99 % is 0.988, above `c` and below `b` (0.995)."""
    collection = circle({"a": 1})
    base = DenseMiner(negatives=3, depth=6)
    assert mined(replace(base, relative_margin=0.05), collection, store, 4)["negatives"] == [4, 5]
    row = mined(replace(base, relative_margin=0.01), collection, store, 4)
    assert row["negatives"] == [2, 4, 5]
    facts = dict(row["facts"])  # type: ignore[call-overload]
    spread = facts.pop("scores")["dense"]
    assert [sum(spread[kind]) for kind in ("positives", "negatives")] == [1, 3]
    assert facts == {
        "miner": "dense",
        "wanted": 3,
        "queries": 1,
        "positives": 1,
        "judged_dropped": 0,
        "mined": 3,
        "judged": 0,
        "judged_unused": 0,
        "short": 0,
        "without": 0,
        "unreached": 0,
        "dropped": 0,
        "candidates": 6,
        "by_source": {"dense": {"negatives": 3, "queries": 1}},
        "removed": {"positive": 2, "judged": 0, "query_itself": 0, "repeated_text": 0, "relative_margin": 1},
        "scored_by": "dense",
    }
    assert mined(replace(base, relative_margin=None, absolute_margin=0.5), collection, store, 4)["negatives"] == [5]
    assert mined(replace(base, relative_margin=None, max_score=0.97), collection, store, 4)["negatives"] == [2, 4, 5]
    assert mined(replace(base, negatives=2, relative_margin=None, skip=4), collection, store, 4)["negatives"] == [4, 5]
    assert mined(replace(base, relative_margin=None, depth=3), collection, store, 4)["negatives"] == [1]


@pytest.mark.usefixtures("given_vectors")
def test_the_margin_holds_for_a_negative_score(store: Store) -> None:
    """The query lies opposite: its positive `a` scores -0.985. (1 - 0.005)·s is -0.980 and would let `b` (-1.0) as well
    as `c` (-0.985) pass; s - 0.005·|s| is -0.990 and lets `b` alone pass."""
    collection = circle({"a": 1})
    assert mined(DenseMiner(negatives=5, depth=6, relative_margin=0.005), collection, store, 190)["negatives"] == [1]


@pytest.mark.usefixtures("given_vectors")
def test_of_several_positives_the_lowest_sets_the_margin(store: Store) -> None:
    """Positives at 4° and 56°: nothing between them may be a negative."""
    collection = circle({"a": 1, "e": 2})
    row = mined(DenseMiner(negatives=5, depth=6, relative_margin=0.0), collection, store, query=4)
    assert row["positives"] == [4, 0]  # by grade
    np.testing.assert_allclose(row["positive_scores"], np.cos(np.deg2rad([56, 4])), atol=1e-6)
    assert row["negatives"] == [5]


@pytest.mark.usefixtures("given_vectors")
def test_judged_negatives_come_first_with_their_scores(store: Store) -> None:
    row = mined(
        DenseMiner(negatives=2, depth=6, relative_margin=None), circle({"a": 1, "f": 0, "d": 0}), store, query=4
    )  # d has the text of a: no negative
    assert row["negatives"] == [5, 1]
    assert row["negative_sources"] == ["judged", "dense"]
    assert row["negative_ranks"] == [None, 3]
    np.testing.assert_allclose(row["negative_scores"], np.cos(np.deg2rad([86, 6])), atol=1e-6)
    assert row["facts"]["judged_dropped"] == 1  # type: ignore[index]


def test_bm25_by_hand(store: Store, tiny_encoder: Encoder) -> None:
    documents = {"a": "the red fox", "b": "a red red car", "c": "blue", "d": "foxes are red", "e": "a car"}
    collection = make_collection(
        documents, {"q": "red foxes", "r": "unheard"}, {"train": {"q": {"a": 1}, "r": {"c": 1}}}
    )
    rows = BM25Miner(negatives=3, depth=5).mine(collection, tiny_encoder, store).rows
    assert rows["negatives"][:] == [[3, 1], []]  # e and c share no word with "red foxes": never filled with them
    assert rows["negative_ranks"][:] == [[2, 3], []]
    assert rows["positive_scores"][0][0] == rows["negative_scores"][0][0] > rows["negative_scores"][0][1]
    assert rows["positive_scores"][1] == [0.0]
    strict = BM25Miner(negatives=3, depth=5, relative_margin=0.1).mine(collection, tiny_encoder, store)
    assert strict.rows["negatives"][:] == [[1], []]
    assert (strict.facts["short"], strict.facts["without"]) == (2, 1)


@pytest.mark.parametrize(
    "miner", [RandomMiner(9), BM25Miner(9, depth=9), DenseMiner(9, depth=9, relative_margin=None)], ids=repr
)
def test_the_query_itself_is_no_negative(miner: Miner, store: Store, tiny_encoder: Encoder) -> None:
    documents = {"a": "is it raining", "b": "does it rain", "c": "will it rain", "d": "does it rain"}
    collection = make_collection(documents, {"q": "does it rain"}, {"train": {"q": {"a": 1}}})
    training_set = miner.mine(collection, tiny_encoder, store)
    assert training_set.rows["negatives"][:] == [[2]]
    assert training_set.facts["removed"]["query_itself"] >= 1
    named = make_collection(documents, {"c": "does it rain"}, {"train": {"c": {"a": 1}}})
    assert miner.mine(named, tiny_encoder, store).rows["negatives"][:] == [[2]]
    same = miner.mine(replace(named, exclude_self=True), tiny_encoder, store)
    assert same.rows["negatives"][:] == [[]]
    assert same.relevant == {0: frozenset({0, 1, 2})}


def test_random_draws_each_text_once_and_takes_all_there_is(store: Store, tiny_encoder: Encoder) -> None:
    training_set = RandomMiner(negatives=10, seed=3).mine(circle({"a": 1, "b": 0}), tiny_encoder, store)
    (row,) = training_set.rows
    assert row["negatives"][0] == 1
    assert sorted(row["negatives"]) == [1, 2, 4, 5]  # all but a and its copy d
    assert row["negative_ranks"] == row["negative_scores"] == [None] * 4
    assert row["negative_sources"] == ["judged", "random", "random", "random"]
    assert training_set.facts["short"] == 1


def test_random_is_a_function_of_the_seed(small_collection: Collection, tmp_path: Path, tiny_encoder: Encoder) -> None:
    def draw(seed: int, folder: str) -> list[list[int]]:
        rows: list[list[int]] = (
            RandomMiner(3, seed).mine(small_collection, tiny_encoder, Store(tmp_path / folder)).rows["negatives"][:]
        )
        return rows

    assert draw(1, "first") == draw(1, "second")
    assert draw(1, "first") != draw(2, "first")


@pytest.mark.parametrize("miner", [RandomMiner(2, judged=3), NoNegatives(judged=3)], ids=repr)
def test_of_many_judged_negatives_without_scores_some_are_drawn(
    miner: RandomMiner | NoNegatives, store: Store, tiny_encoder: Encoder
) -> None:
    documents = {f"d{row:02}": f"text {row}" for row in range(40)}
    queries = {f"q{row:02}": f"query {row}" for row in range(20)}
    judgements = {name: int(name == "d00") for name in documents}
    collection = make_collection(documents, queries, {"train": dict.fromkeys(queries, judgements)})
    training_set = miner.mine(collection, tiny_encoder, store)
    assert training_set.rows["negative_sources"][:] == [["judged"] * 3] * 20
    assert training_set.facts["judged_unused"] == 20 * 36
    drawn = [row for negatives in training_set.rows["negatives"] for row in negatives]
    assert len(set(drawn)) > 20  # of 39, in 60 draws: not the first ones each time
    again = replace(miner, seed=1).mine(collection, tiny_encoder, store)
    assert again.rows["negatives"][:] != training_set.rows["negatives"][:]


def test_none_keeps_the_judged_negatives_alone(store: Store, tiny_encoder: Encoder) -> None:
    training_set = NoNegatives().mine(circle({"a": 2, "b": 0, "c": 1}), tiny_encoder, store)
    (row,) = training_set.rows
    assert (row["positives"], row["negatives"], row["negative_sources"]) == ([0, 2], [1], ["judged"])
    assert len(training_set) == 1
    assert training_set.rows.features.arrow_schema.equals(SCHEMA)


def random_collection(seed: int) -> Collection:
    """Many copies, several positives and judged negatives per query, other splits that must not matter."""
    random = np.random.default_rng(seed)
    words = [f"word{number}" for number in range(12)]
    documents = {f"d{row}": " ".join(random.choice(words, 2)) for row in range(80)}
    queries = {f"q{row}": " ".join(random.choice(words, 3)) for row in range(20)}

    def judge(count: int, grades: list[int]) -> dict[str, dict[str, int]]:
        return {
            query: {f"d{row}": int(random.choice(grades)) for row in random.choice(80, count, replace=False)}
            for query in queries
        }

    return make_collection(documents, queries, {"train": judge(6, [-1, 0, 1, 2]), "test": judge(5, [1])})


MINERS: list[Miner] = [
    NoNegatives(),
    RandomMiner(6),
    BM25Miner(negatives=6, depth=40),
    BM25Miner(negatives=3, depth=40, sampling="uniform", skip=2),
    DenseMiner(negatives=6, depth=70, relative_margin=None),
    DenseMiner(negatives=4, depth=80, relative_margin=0.05, sampling="uniform"),
]


@pytest.mark.parametrize("miner", MINERS, ids=repr)
@pytest.mark.parametrize("seed", range(3))
def test_no_positive_and_no_copy_of_one_is_ever_a_negative(
    miner: Miner, seed: int, store: Store, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples_module, "BLOCK", 7)  # several blocks
    collection = random_collection(seed)
    texts = list(collection.document_texts())
    training_set = miner.mine(collection, tiny_encoder, store)
    limit = getattr(miner, "negatives", 0)
    for row in training_set.rows:
        judgements = collection.qrels["train"][collection.query_ids[row["query"]]]
        positives = {name for name, grade in judgements.items() if grade >= 1}
        relevant = {texts[collection.document_rows[name]] for name in positives}
        negatives = [texts[document] for document in row["negatives"]]
        assert not relevant & set(negatives)
        assert len(negatives) == len(set(negatives))
        assert {collection.document_ids[document] for document in row["positives"]} == positives
        assert training_set.relevant[row["query"]] == frozenset(row["positives"])
        judged = {texts[collection.document_rows[name]] for name, grade in judgements.items() if grade < 1} - relevant
        assert set(negatives[: len(judged)]) == judged
        assert len(negatives) <= max(limit, len(judged))
    assert sorted(training_set.rows["query"]) == training_set.rows["query"][:]


@pytest.mark.parametrize("miner", MINERS, ids=repr)
def test_other_splits_change_nothing(miner: Miner, store: Store, tiny_encoder: Encoder) -> None:
    collection = random_collection(0)
    first = miner.mine(collection, tiny_encoder, store)
    without = replace(collection, qrels={"train": collection.qrels["train"], "dev": {"q0": {"d3": 1}}})
    later = Store(store.dir)
    again = miner.mine(without, tiny_encoder, later)
    assert again.rows.to_dict() == first.rows.to_dict()
    assert "negatives" in later.reused


@pytest.mark.parametrize("miner", [DenseMiner(3, depth=20), BM25Miner(3, depth=20), NoNegatives()], ids=repr)
def test_blocks_do_not_change_the_result(
    miner: Miner, tmp_path: Path, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = random_collection(1)
    whole = miner.mine(collection, tiny_encoder, Store(tmp_path / "whole"))
    monkeypatch.setattr(examples_module, "BLOCK", 3)
    parts = miner.mine(collection, tiny_encoder, Store(tmp_path / "parts"))
    assert parts.rows.to_dict() == whole.rows.to_dict()
    assert parts.facts == whole.facts


def test_the_store_knows_weights_data_and_parameters(
    small_collection: Collection, store: Store, make_encoder: Callable[..., Encoder]
) -> None:
    encoder = make_encoder()

    def mine(miner: Miner, encoder: Encoder, collection: Collection = small_collection) -> tuple[TrainingSet, bool]:
        before = store.built.count("negatives")
        return miner.mine(collection, encoder, store), store.built.count("negatives") > before

    first, new = mine(DenseMiner(2, depth=5), encoder)
    assert new
    again, new = mine(DenseMiner(2, depth=5), encoder)
    assert not new
    assert again.rows.to_dict() == first.rows.to_dict()
    assert again.facts == first.facts
    assert not mine(DenseMiner(2, depth=5, seed=7), encoder)[1]  # nothing is drawn
    assert mine(DenseMiner(2, depth=6), encoder)[1]
    assert mine(DenseMiner(2, depth=5, relative_margin=None), encoder)[1]
    next(encoder.parameters()).data.add_(0.5)
    assert mine(DenseMiner(2, depth=5), encoder)[1]
    assert mine(DenseMiner(2, depth=5), make_encoder(query_prompt="query: "))[1]
    train = {**small_collection.qrels["train"], "q0": {"d0": 1, "d5": 0}}
    assert mine(DenseMiner(2, depth=5), encoder, replace(small_collection, qrels={"train": train}))[1]
    assert mine(BM25Miner(2, depth=5), encoder)[1]
    assert not mine(BM25Miner(2, depth=5), make_encoder())[1]  # no model in it
    assert mine(BM25Miner(2, depth=5, b=0.5), encoder)[1]


def test_the_store_knows_the_weights_of_another_encoder_that_mines(
    small_collection: Collection, store: Store, tmp_path: Path, make_encoder: Callable[..., Encoder]
) -> None:
    other, miner = make_encoder(), DenseMiner(2, depth=5, encoder=Pretrained(str(tmp_path / "other"), precision="fp32"))
    for step in (0.0, 0.0, 0.5):
        next(other.parameters()).data.add_(step)
        save_encoder(other, tmp_path / "other")
        miner.mine(small_collection, make_encoder(), store)
    assert store.built.count("negatives") == 2


def test_depth_may_exceed_the_corpus(small_collection: Collection, store: Store, tiny_encoder: Encoder) -> None:
    training_set = DenseMiner(negatives=100, depth=1000, relative_margin=None).mine(
        small_collection, tiny_encoder, store
    )
    assert [len(negatives) for negatives in training_set.rows["negatives"]] == [11] * 8
    assert training_set.facts["short"] == 8


def test_a_window_too_small_and_a_missing_split_are_said(
    small_collection: Collection, store: Store, tiny_encoder: Encoder
) -> None:
    for make in (DenseMiner, BM25Miner):
        with pytest.raises(ConfigError, match="raise miner"):
            make(negatives=4, skip=8, depth=10)
    for miner in MINERS:
        with pytest.raises(UserError, match="has no training pairs"):
            miner.mine(replace(small_collection, qrels={}), tiny_encoder, store)


def test_the_rows_are_memory_mapped_and_the_facts_are_json(
    small_collection: Collection, store: Store, tiny_encoder: Encoder
) -> None:
    training_set = DenseMiner(2, depth=5).mine(small_collection, tiny_encoder, store)
    assert isinstance(training_set.rows, Dataset)
    assert training_set.rows.cache_files[0]["filename"].startswith(str(store.dir))
    assert json.loads(json.dumps(training_set.facts)) == training_set.facts


def test_unreached_queries_are_not_all_dropped(
    small_collection: Collection, tiny_encoder: Encoder, store: Store
) -> None:
    asked = small_collection.query_ids[0]
    unlike = {"train": {asked: {small_collection.document_ids[-1]: 1}}}
    collection = replace(small_collection, qrels=unlike)
    with pytest.raises(
        UserError, match=r"^bm25 finds no positive of any of the 1 training queries.*set miner.unreached=keep"
    ):
        BM25Miner(1, depth=1, unreached="drop").mine(collection, tiny_encoder, store)
