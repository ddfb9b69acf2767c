"""What is left to be judged of a run, in which order, and how new judgements join the old ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from embfit.data.trec import write_qrels
from embfit.errors import UserError
from embfit.review.judgement_pool import JudgementPool, pool_results
from embfit.review.judging_page import judging_page
from embfit.review.new_judgements import merge_judgements
from embfit.review.run_data import RunData
from embfit.store import Store
from tests.conftest import make_collection

DOCUMENTS = {f"d{number}": f"text {number}" for number in range(12)}
QUERIES = {"q1": "one", "q2": "two", "q3": "three", "u1": "users"}
JUDGED = {
    "test": {"q1": {"d0": 1, "d1": 0}, "q2": {"d2": 2}, "q3": {"d3": 0}},
    "production": {"u1": {"d4": 1}},
}


@pytest.fixture
def run(store: Store, tmp_path: Path) -> RunData:
    """A run of two systems, whose folder is `tmp_path`."""
    rankings = {
        "base": {"q1": ["d0", "d5", "d6"], "q2": ["d2", "d7"], "q3": ["d3"]},
        "our_model": {"q1": ["d6", "d1", "d8", "d9"], "q2": ["d2"], "q3": ["d10"]},
        "base-production": {"u1": ["d4", "d5"]},
    }
    (tmp_path / "rankings").mkdir()
    for name, found in rankings.items():
        lines = [
            f"{query} Q0 {document} {rank} {9 - rank} {name}\n"
            for query, documents in found.items()
            for rank, document in enumerate(documents, 1)
        ]
        (tmp_path / "rankings" / f"{name}.trec").write_text("".join(lines))
    values: dict[str, Any] = {"task": {"qrels": None}, "evaluator": {"split": "test"}}
    return RunData(tmp_path, values, make_collection(DOCUMENTS, QUERIES, JUDGED), store, [])


def test_the_first_results_of_all_systems_are_pooled(run: RunData) -> None:
    pool = pool_results(run, None, 3, None)
    assert pool.systems == ["base", "base-production", "our_model"]
    assert pool.found == {"q1": ["d0", "d1", "d5", "d6", "d8"], "q2": ["d2", "d7"], "q3": ["d10", "d3"]}
    assert pool.unjudged == {"q1": ["d5", "d6", "d8"], "q2": ["d7"], "q3": ["d10"]}
    assert pool_results(run, None, 3, ["our_model"]).unjudged == {"q1": ["d6", "d8"], "q3": ["d10"]}
    assert pool_results(run, "production", 10, None).unjudged == {"u1": ["d5"]}


def test_queries_are_drawn_whole_and_in_another_order_by_another_seed(run: RunData) -> None:
    pool = pool_results(run, None, 3, None)
    orders = {seed: pool.draw(100, seed) for seed in range(20)}
    assert {frozenset(pairs) for pairs in orders.values()} == {
        frozenset({("q1", "d5"), ("q1", "d6"), ("q1", "d8"), ("q2", "d7"), ("q3", "d10")})
    }
    assert len({tuple(pairs) for pairs in orders.values()}) > 5
    for pairs in orders.values():
        assert len([one for one, other in pairwise(pairs) if one[0] != other[0]]) == 2
    for seed in range(20):
        assert pool.draw(2, seed) == orders[seed][: len(pool.draw(2, seed))]
        queries = {query for query, _ in pool.draw(2, seed)}
        assert sum(len(pool.unjudged[query]) for query in queries) == len(pool.draw(2, seed)) in (1, 2, 3)


def test_another_scale_begins_without_the_grades_of_the_first(run: RunData) -> None:
    """The browser keeps grades by the page's source, and 1 of 1 is not 1 of 3."""
    pool = pool_results(run, None, 3, None)
    pages = [
        judging_page(pool, pool.draw(cards, 0), highest, run.store, "") for cards, highest in ((2, 1), (9, 1), (2, 3))
    ]
    assert pages[0].source == pages[1].source != pages[2].source


def test_what_the_run_was_measured_by_counts_as_judged(run: RunData, tmp_path: Path) -> None:
    write_qrels(tmp_path / "ours.qrels", {"q1": {"d0": 1, "d5": 0}})
    values = {**run.values, "task": {"qrels": str(tmp_path / "ours.qrels")}}
    pool = pool_results(RunData(run.folder, values, run.collection, run.store, []), None, 3, None)
    assert pool.unjudged == {"q1": ["d1", "d6", "d8"]}


@pytest.mark.parametrize(
    ("split", "systems", "said"),
    [
        (None, ["our_modle"], r"has no our_modle\.trec; did you mean our_model\? it has base, base-production, our_"),
        ("tset", None, r"small has no split 'tset'; its splits: production, test"),
    ],
)
def test_what_is_not_there_to_judge(run: RunData, split: str | None, systems: Sequence[str] | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        pool_results(run, split, 10, systems)


def test_generated_queries_are_not_judged(run: RunData) -> None:
    write_qrels(run.folder / "rankings" / "dev.qrels", {"made": {"d1": 1}})
    with pytest.raises(UserError, match="the queries of split 'dev' were generated in the run and are not of small"):
        pool_results(run, "dev", 10, None)


def file(path: Path, *lines: Mapping[str, object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def line(query: str, document: str, grade: object) -> dict[str, object]:
    return {"query_id": query, "document_id": document, "grade": grade, "query": "text"}


@pytest.fixture
def pool() -> JudgementPool:
    collection = make_collection(DOCUMENTS, QUERIES, JUDGED)
    return JudgementPool("test", collection, collection.qrels["test"], {}, ["base"])


def test_new_judgements_join_the_old_ones_and_the_first_counts(pool: JudgementPool, tmp_path: Path) -> None:
    one = file(
        tmp_path / "a.jsonl", line("q1", "d5", 2), line("q1", "d6", 0), line("q2", "d2", 2), line("q1", "d7", None)
    )
    other = file(
        tmp_path / "b.jsonl", line("q1", "d5", 0), line("q1", "d0", 0), line("q9", "d1", 1), line("q1", "x", 1)
    )
    merged = merge_judgements(pool, [one, other])
    assert merged.qrels == {"q1": {"d0": 1, "d1": 0, "d5": 2, "d6": 0}, "q2": {"d2": 2}, "q3": {"d3": 0}}
    assert (merged.added, merged.repeated, merged.skipped, merged.unknown) == ({0: 1, 2: 1}, 1, 1, 2)
    assert list(map(str, merged.conflicts)) == [
        f"query q1, document d5: 2 by {one}:1, 0 by {other}:1",
        f"query q1, document d0: 1 by the data, 0 by {other}:2",
    ]
    assert pool.judged["q1"] == {"d0": 1, "d1": 0}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"query_id": "q1", "document_id": "d1", "answer": "keep"},
            r'a\.jsonl:1: there is no "grade"; is this a file of',
        ),
        (line("q1", "d1", "good"), r'a\.jsonl:1: "grade" must be a whole number, got \'good\''),
        (line("q1", "d1", -1), r'a\.jsonl:1: "grade" must be 0 or more, got -1'),
    ],
)
def test_what_is_no_file_of_judgements(
    pool: JudgementPool, tmp_path: Path, record: Mapping[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        merge_judgements(pool, [file(tmp_path / "a.jsonl", record)])
    with pytest.raises(UserError, match="has no judgements; export them"):
        merge_judgements(pool, [file(tmp_path / "empty.jsonl")])
