from dataclasses import replace

import pytest

from embfit.evaluator.judging import judge
from embfit.evaluator.production import production_gap
from embfit.evaluator.provenance import same_source
from embfit.records import Collection, Evaluation, Ranking
from embfit.report.production import production_sentences
from tests.conftest import make_collection

DOCUMENTS = {name: f"text {name}" for name in "abcde"}
QUERIES = {f"s{place}": "templated" for place in range(4)} | {f"p{place}": "asked" for place in range(6)}
QRELS = {
    "train": {},
    "test": {f"s{place}": {"a": 1} for place in range(4)},
    "production": {f"p{place}": {"a": 2, "b": 0} for place in range(6)},
}


@pytest.fixture
def collection() -> Collection:
    return make_collection(DOCUMENTS, QUERIES, QRELS)


def system(name: str, split: str, places: list[int], collection: Collection) -> Evaluation:
    """A system that finds `a` at the place given in each of a split's queries; `b` is second to last."""
    scored = {}
    for query, place in zip(collection.qrels[split], places, strict=True):
        order = ["c", "d", "b", "e"]
        order.insert(place - 1, "a")
        scored[query] = [(document, -float(index)) for index, document in enumerate(order)]
    return judge(name, collection, split, Ranking.of(scored), ["mrr@10"])


@pytest.fixture
def section(collection: Collection) -> dict:
    synthetic = [system("base", "test", [2, 2, 2, 2], collection), system("tuned", "test", [1, 1, 1, 1], collection)]
    production = [
        system("base", "production", [2, 1, 4, 2, 1, 2], collection),
        system("tuned", "production", [1, 1, 4, 2, 2, 2], collection),
    ]
    return production_gap(synthetic, production, collection, 2_000, 0)


def test_the_gap_of_each_system(section: dict) -> None:
    base, tuned = section["gaps"]
    assert (base["synthetic"], base["production"]) == (0.5, pytest.approx((3 * 0.5 + 2 + 0.25) / 6))
    assert tuned["gap"] == pytest.approx((2 * 1 + 3 * 0.5 + 0.25) / 6 - 1)
    assert tuned["ci95"] is None  # of four queries and six
    assert (section["split"], section["synthetic_split"]) == ("production", "test")


def test_how_much_of_a_gain_arrives(section: dict) -> None:
    (gain,) = section["gains"]
    assert (gain["a"], gain["b"], gain["synthetic"], gain["production"]) == ("base", "tuned", 0.5, 0.0)
    assert gain["gap"] == -0.5
    (comparison,) = section["comparisons"]
    assert (comparison["wins"], comparison["ties"], comparison["losses"]) == (1, 4, 1)
    (power,) = section["power"]
    assert power["queries"] == 6
    # differences 0.5, -0.5 and four zeros: variance 0.5 / 5; ((2.801585) / 0.5)² · 0.1 = 3.14
    assert (power["needed_for_observed"], power["needed_for_synthetic"]) == (None, 4)
    assert power["needed"]["0.01"] == 7849


def test_what_would_settle_it_is_not_known_where_nothing_varies(collection: Collection) -> None:
    synthetic = [system("base", "test", [2, 2, 2, 2], collection), system("tuned", "test", [1, 1, 1, 1], collection)]
    production = [system(name, "production", [1] * 6, collection) for name in ("base", "tuned")]
    found = production_gap(synthetic, production, collection, 100, 0)
    assert found["power"] == [{"a": "base", "b": "tuned", "metric": "mrr@10", "queries": 6}]
    assert list(production_sentences(found))[1] == (
        "How many production queries would settle it is not known: all 6 differ by the same."
    )


def test_unjudged_documents_are_counted_and_left_out(section: dict) -> None:
    base = section["systems"]["base"]
    assert base["unjudged@10"] == 3
    # Without c, d and e only b can stand before a, which it does where a was fourth.
    assert base["condensed"]["mrr@10"] == pytest.approx((5 + 1 / 2) / 6)


def test_warnings(section: dict, collection: Collection) -> None:
    assert section["warnings"] == []
    positive = {**collection.qrels, "production": {f"p{place}": {"a": 1} for place in range(6)}}
    written = replace(collection, qrels=positive, facts={"queries_from": {"train": "gpt", "test": "gpt"}})
    systems = [[system("base", split, [1] * len(QRELS[split]), written)] for split in ("test", "production")]
    first, second = production_gap(*systems, written, 10, 0)["warnings"]
    assert first.startswith("the queries of split 'test' come from gpt, which made the training queries too")
    assert second.startswith("split 'production' has no document judged as not relevant")


def test_a_split_held_out_of_training_has_its_source(collection: Collection) -> None:
    held_out = replace(
        collection, facts={"held_out": "test, dev", "queries_from": {"train": "gpt", "production": "us"}}
    )
    assert "come from gpt" in str(same_source(held_out, "test"))
    assert same_source(held_out, "production") is None
    assert same_source(collection, "test") is None
    known = replace(collection, facts={"held_out": "test", "queries_from": {"train": "gpt", "test": "users"}})
    assert same_source(known, "test") is None
