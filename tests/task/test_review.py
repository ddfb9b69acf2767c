"""`embfit review` from the command line: from generated queries over decisions to the next run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from embfit.app import main
from tests.task.conftest import FineTuning

GENERATING = [
    "task=generate",
    "generator=extractive",
    "generator.documents.min_words=3",
    "generator.parts=[sentence,keywords]",
    "generator.filters.similar=null",
    "generator.filters.rankers=[bm25]",
    "generator.filters.round_trip=1",
]


def page(path: str) -> dict[str, Any]:
    text = Path(path).read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def table(run: str) -> dict[str, Mapping[str, Any]]:
    return {row["_id"]: row for row in pq.read_table(f"{run}/queries.parquet").to_pylist()}


def trained_on(run: str) -> set[str]:
    return {line.split("\t")[0] for line in Path(f"{run}/dataset/qrels/train.tsv").read_text().splitlines()[1:]}


def decide(**answers: str) -> None:
    lines = [{"query_id": query, "answer": answer} for query, answer in answers.items()]
    Path("review.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_decisions_are_heeded_by_the_next_run(command: list[str], capsys: Any) -> None:
    generating = [*(word for word in command if not word.startswith("training.")), *GENERATING]
    assert main([*generating, "run.dir=one"]) == 0
    made = table("one")
    kept = sorted(name for name, row in made.items() if row["dropped_by"] is None)
    dropped = sorted(name for name, row in made.items() if row["dropped_by"] == "round_trip")
    assert min(len(kept), len(dropped)) >= 6
    capsys.readouterr()
    assert main(["review", "one", "--cards", "10"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("cards      10: 5 that the filters keep, 5 that they drop\npage       review.html: open it")
    assert "with task.review=review.jsonl" in told
    data = page("review.html")
    shown = {card[0]: card for card in data["cards"]}
    assert {shown[name][5] for name in shown.keys() & set(kept)} == {"keep"}
    assert {shown[name][5] for name in shown.keys() & set(dropped)} == {"round_trip"}
    name = next(iter(shown))
    asked, place, shared, facts = shown[name][1:5]
    assert (asked, data["documents"][place][0]) == (made[name]["text"], made[name]["document_id"])
    assert {"style": made[name]["style"], "rank by BM25": str(made[name]["rank_bm25"])}.items() <= dict(facts).items()
    assert set(shared) <= set(data["documents"][place][2].split())
    assert len(shared) >= 3

    decide(
        **{kept[0]: "drop", kept[1]: "keep", dropped[0]: "keep", dropped[1]: "drop", kept[2]: "skip", "none": "keep"}
    )
    assert main(["review", "one", "--read", "review.jsonl"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "decisions  4, 1 skipped, 1 about queries that are not of the run",
        "agreement  2 of 4, 50%",
        "",
        "filters say                       decided  you agree  share  95 % interval",
        "keep                              2        1          50%    9% to 91%",
        "drop: do not find their document  2        1          50%    9% to 91%",
    ]
    assert main([*generating, "run.dir=two", "task.review=review.jsonl"]) == 0
    assert trained_on("two") == (trained_on("one") - {kept[0]}) | {dropped[0]}
    found = json.loads(Path("two/report.json").read_text())["generation"]
    assert found["review"] == {
        "kept": 2, "dropped": 2, "overruled": 2, "leaks": 0, "skipped": 1, "changed": 0, "unknown": 1,
    }  # fmt: skip
    assert found["dropped"]["review"] == 1
    assert "Dropped by a person" in Path("two/report.html").read_text()
    again = table("two")
    assert {name: (again[name]["dropped_by"], again[name]["review"]) for name in (kept[0], kept[1], dropped[0])} == {
        kept[0]: ("review", "drop"),
        kept[1]: (None, "keep"),
        dropped[0]: (None, "keep"),
    }
    capsys.readouterr()
    assert main(["review", "two", "--read", "review.jsonl"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("decisions  0, 1 skipped, 1 about queries")
    assert told[1].startswith("before     4 were decided before this run")
    assert len(told) == 2
    assert main(["review", "two/dataset", "--cards", "1000", "--out", "again.html"]) == 0
    assert {card[0] for card in page("again.html")["cards"]} == {
        name for name, row in again.items() if not row["review"] and row["dropped_by"] in (None, "round_trip")
    }
    shutil.copytree("two/dataset", "alone")  # as a colleague gets it
    assert main(["review", "alone", "--cards", "1000", "--out", "alone.html"]) == 0
    alone = page("alone.html")["cards"]  # where queries of the same text are one
    assert {card[1] for card in alone} == {again[name]["text"] for name in trained_on("two")}
    assert {card[5] for card in alone} == {"keep"}


def test_queries_whose_documents_have_changed_are_left_out(command: list[str], capsys: Any, tmp_path: Path) -> None:
    generating = [*(word for word in command if not word.startswith("training.")), *GENERATING]
    assert main([*generating, "run.dir=one"]) == 0
    corpus = tmp_path / "collection" / "corpus.jsonl"
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    rows[3]["text"] = "an entirely new text"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    assert main(["review", "one", "--cards", "1000"]) == 0
    assert "left out   2, whose documents are gone or have changed\n" in capsys.readouterr().out
    assert "d3" not in {document[0] for document in page("review.html")["documents"]}


def test_what_cannot_be_reviewed_is_told_in_one_line(fine_tuning: FineTuning, capsys: Any) -> None:
    for words, said in (
        ("nowhere", "nowhere is not a folder; name that of a run of task=generate"),
        ("run", "run has no queries.parquet, so the run has generated no queries"),
        ("run --cards 0", "argument --cards: '0' is not a whole number above 0; see embfit review --help"),
        ("run --read nil.jsonl", "cannot read nil.jsonl: No such file or directory"),
        ("run --read a --out b", "--read writes no file; leave out --out"),
        ("", "the following arguments are required: RUN"),
    ):
        assert main(["review", *words.split()]) in (1, 2)
        error = capsys.readouterr().err
        assert said in error
        assert error.count("embfit: error: ") == 1
        assert error.splitlines()[-1].startswith("embfit: error: ")
