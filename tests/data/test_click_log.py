"""Search logs: counts to grades, with the numbers worked out by hand, and splits by session and time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from embfit.data import ClickLog
from embfit.data.click_grades import examination_weight
from embfit.errors import ConfigError, UserError
from embfit.records import Collection
from embfit.store import Store
from tests.data.conftest import write_jsonl

WHOLE = {"dev_share": 0.0, "test_share": 0.0}


def log_of(tmp_path: Path, header: str, *rows: str) -> str:
    path = tmp_path / "log.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def judged(collection: Collection, split: str = "train") -> Mapping[str, Mapping[str, int]]:
    """Return a split's judgements by texts."""
    queries = dict(zip(collection.query_ids, collection.query_texts(), strict=True))
    documents = dict(zip(collection.document_ids, collection.document_texts(), strict=True))
    qrels = collection.qrels.get(split, {})
    return {queries[query]: {documents[name]: grade for name, grade in found.items()} for query, found in qrels.items()}


def test_rates_become_grades(tmp_path: Path, store: Store) -> None:
    path = log_of(
        tmp_path,
        "query,document,clicks,impressions",
        "How long?,two days,30,100",
        "how long,two days,10,100",  # the same query: 40 of 200
        "How long?,a week,10,100",
        "How long?,a year,0,400",
        "where?,here,3,10",
        "where?,there,1,50",
        "where?,elsewhere,46,140",
    )
    collection = ClickLog(path, prior_impressions=0, **WHOLE).load(store)
    # 100 clicks of 900 impressions: 1/9. Lifts: 40/200 = 1.8, 10/100 = 0.9, 3/10 = 2.7, 46/140 = 2.96
    assert judged(collection) == {"How long?": {"two days": 1}, "where?": {"here": 2, "elsewhere": 2}}
    facts = collection.facts
    assert (facts["pairs_with_few_clicks_left_out"], facts["pairs_below_min_lift_left_out"]) == (1, 1)
    assert (facts["pairs_never_clicked"], facts["rows"]) == (1, 7)
    # with a prior of 20 impressions "here" has (3 + 20/9) / 30 = 0.174, a lift of 1.57
    assert judged(ClickLog(path, **WHOLE).load(store))["where?"] == {"here": 1, "elsewhere": 2}
    low = ClickLog(path, prior_impressions=0, min_lift=0.5, max_grade=2, **WHOLE).load(store)
    assert judged(low) == {"How long?": {"two days": 2, "a week": 1}, "where?": {"here": 2, "elsewhere": 2}}
    shown = ClickLog(path, prior_impressions=0, min_impressions=50, **WHOLE).load(store)
    assert judged(shown)["where?"] == {"elsewhere": 2}


def test_what_nobody_clicked_is_no_negative_unless_asked_for(tmp_path: Path, store: Store) -> None:
    rows = ["q,good,9,10", "q,bad,0,50", "q,rare,0,5", "other,bad,0,90"]
    path = log_of(tmp_path, "query,document,clicks,impressions", *rows)
    assert judged(ClickLog(path, **WHOLE).load(store)) == {"q": {"good": 3}}
    asked = ClickLog(path, not_relevant_after=20, **WHOLE).load(store)
    assert judged(asked) == {"q": {"good": 3, "bad": 0}}  # a query without a click has no judgement


def test_position_bias_is_divided_out(tmp_path: Path, store: Store) -> None:
    rows = ["q,first,20,100,1", "q,fifth,8,100,5", "q,tenth,1,100,10", "r,last,2,100,100"]
    path = log_of(tmp_path, "query,document,clicks,impressions,rank", *rows)
    plain = ClickLog(path, prior_impressions=0, **WHOLE).load(store)
    assert judged(plain) == {"q": {"first": 2, "fifth": 1}}  # 31 of 400; lifts 2.6, 1.03
    even = ClickLog(path, prior_impressions=0, position="rank", position_bias=1, **WHOLE).load(store)
    # weighted 20, 40, 10 and 2 · 10 (at most): 90 of 400 = 0.225; lifts 0.89, 1.78 and 0.89
    assert judged(even) == {"q": {"fifth": 1}}
    assert [examination_weight(rank, 1.0, 10) for rank in (1, 4, 100)] == [1, 4, 10]
    assert examination_weight(4, 0.5, 10) == pytest.approx(2)
    with pytest.raises(ConfigError, match=r"data\.position=COLUMN"):
        ClickLog(path, position_bias=1)


def test_clicks_alone(tmp_path: Path, store: Store) -> None:
    path = log_of(tmp_path, "query,document", *["q,once"], *["q,twice"] * 2, *["q,often"] * 8)
    collection = ClickLog(path, clicks=None, impressions=None, **WHOLE).load(store)
    assert judged(collection) == {"q": {"twice": 1, "often": 3}}  # 8 is two doublings of 2


def test_blank_cells_are_counted_and_skipped(tmp_path: Path, store: Store) -> None:
    rows = ["q,good,9,10", ",good,9,10", "q, ,9,10", "q,good,,10", "q,good,9,", "q,more,12,10"]
    collection = ClickLog(log_of(tmp_path, "query,document,clicks,impressions", *rows), min_lift=0.1, **WHOLE).load(
        store
    )
    assert judged(collection) == {"q": {"good": 3, "more": 3}}
    assert collection.facts["rows_with_blank_cells_skipped"] == 4
    assert collection.facts["rows_with_more_clicks_than_impressions"] == 1


def test_the_last_sessions_are_test(tmp_path: Path, store: Store) -> None:
    rows = []
    for day in range(1, 21):  # a session a day, of a query that always comes and one of its own
        queries = ("always", f"query {day}")
        rows += [f"{query},document of {query},5,s{day},2026-05-{day:02}T10:00:00" for query in queries]
    path = log_of(tmp_path, "query,document,clicks,session,date", *reversed(rows))
    columns: dict[str, Any] = {"impressions": None, "session": "session", "time": "date"}
    collection = ClickLog(path, dev_share=0.1, test_share=0.2, **columns).load(store)
    assert set(judged(collection, "test")) == {f"query {day}" for day in range(17, 21)}
    assert set(judged(collection, "dev")) == {"query 15", "query 16"}
    assert set(judged(collection)) == {"always", *(f"query {day}" for day in range(1, 15))}
    assert collection.facts["queries_kept_out_of_later_splits"] == 2  # always, of dev and of test
    assert judged(collection)["always"] == {"document of always": 3}


def test_sessions_without_times_are_drawn(tmp_path: Path, store: Store) -> None:
    rows = [f"query {n},document {n},5,s{n // 2}" for n in range(40)]
    path = log_of(tmp_path, "query,document,clicks,session", *rows)
    drawn = []
    for seed in (0, 1):
        collection = ClickLog(path, impressions=None, session="session", split_seed=seed).load(store)
        sides = {split: {int(text.split()[1]) // 2 for text in judged(collection, split)} for split in collection.qrels}
        assert {split: len(sessions) for split, sessions in sides.items()} == {"train": 16, "dev": 2, "test": 2}
        assert not sides["train"] & sides["test"]
        drawn.append(sides["test"])
    assert drawn[0] != drawn[1]


def test_ids_of_a_corpus(tmp_path: Path, store: Store) -> None:
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": name, "text": f"text {name}"} for name in "abc"])
    path = log_of(tmp_path, "query,page,clicks,impressions", "q,a,5,10", "q,gone,5,10", "r,b,4,10")
    columns: dict[str, Any] = {"document": None, "document_id": "page", "min_lift": 0.5, **WHOLE}
    collection = ClickLog(path, corpus=str(tmp_path / "corpus.jsonl"), **columns).load(store)
    assert judged(collection) == {"q": {"text a": 2}, "r": {"text b": 1}}
    assert collection.document_ids == ["a", "b", "c"]
    assert collection.facts["rows_with_unknown_documents_skipped"] == 1
    with pytest.raises(ConfigError, match=r"data\.document_id=COLUMN data\.corpus=PATH"):
        ClickLog(path, **columns).load(store)


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ("query,document,clicks\nq,d,1", {}, 'log.csv:2: no column "impressions" (data.impressions); there are: query'),
        (
            "query,document,clicks,impressions\nq,d,x,1",
            {},
            "log.csv:2: \"clicks\" must be a number of at least 0, got 'x'",
        ),
        ("query,document,clicks,impressions\nq,d,-1,1", {}, "must be a number of at least 0, got '-1'"),
        ("query,document,clicks,impressions", {}, "log.csv: no rows; a row is a query, a document and its clicks"),
        (
            "query,document,clicks,impressions\nq,d,1,9",
            {},
            "no document is judged relevant (rows 1, pairs with few clicks left out 1); lower data.min_clicks",
        ),
        (
            "query,document,clicks,impressions,t\nq,d,5,9,soon",
            {"time": "t"},
            "log.csv:2: \"t\" must be a time such as 2026-05-01T12:00:00Z, or a number, got 'soon'",
        ),
        (
            "query,document,clicks,impressions,t\nq,d,5,9,nan",  # which has no place in an order of times
            {"time": "t"},
            "log.csv:2: \"t\" must be a time such as 2026-05-01T12:00:00Z, or a number, got 'nan'",
        ),
    ],
)
def test_bad_logs(tmp_path: Path, store: Store, rows: str, settings: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        ClickLog(log_of(tmp_path, rows), **settings).load(store)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_no_log(tmp_path: Path, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"data\.path=FILE"):
        ClickLog().load(store)
    (tmp_path / "log.txt").write_text("x")
    with pytest.raises(UserError, match=r"the suffix names no format of a log; use \.jsonl"):
        ClickLog(str(tmp_path / "log.txt")).load(store)
