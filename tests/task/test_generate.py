"""`task=generate` from the command line, with and without a server."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from embfit.app import main
from embfit.generator.journal import Journal
from tests.generator.model_server import Answer, ModelServer, queries, says

KEY = "sk-a-key-that-nobody-may-see"


@pytest.fixture
def generating(command: list[str]) -> list[str]:
    kept = [word for word in command if not word.startswith("training.")]
    return [*kept, "task=generate", "generator.documents.min_words=3", "generator.queries=2"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TEAM_KEY", KEY)

    def answer(body: dict[str, Any], _: int) -> Answer:
        text = body["messages"][0]["content"].split('"""')[1]
        words = text.split()
        return queries(" ".join(words[1:4]), " ".join(words[-4:]))

    with ModelServer(answer) as started:
        yield started


@pytest.fixture
def asking(generating: list[str], server: ModelServer) -> list[str]:
    api = [f"generator.url={server.url}", "generator.model=tiny-writer", "generator.key_variable=TEAM_KEY"]
    return [*generating, "generator=api", *api, "generator.styles.question.share=1", "generator.filters.similar=null"]


def report(run: str) -> dict[str, Any]:
    return json.loads((Path(run) / "report.json").read_text())["generation"]


def test_queries_of_a_server_become_a_data_set(asking: list[str], server: ModelServer, capsys: Any) -> None:
    assert main([*asking, "run.dir=one", "generator.styles.keywords.share=0", "generator.styles.claim.share=0"]) == 0
    told = capsys.readouterr().out
    use = """python -m embfit data=beir data.path=one/dataset 'data.queries_from={train: "api (tiny-writer)"}'"""
    assert f"use it   {use}" in told
    assert main([*shlex.split(use)[3:], "--cfg", "job", "--package", "data.queries_from"]) == 0
    assert capsys.readouterr().out.endswith("\ntrain: api (tiny-writer)\n")
    found = report("one")
    assert (found["requests"], found["answered"], found["generated"], found["tokens"]) == (36, 36, 72, 36 * 50)
    assert found["kept"] + sum(found["dropped"].values()) == 72
    assert found["styles"] == {"question": {"generated": 72, "kept": found["kept"]}}
    table = pq.read_table("one/queries.parquet").to_pylist()
    assert len(table) == 72
    assert sum(row["dropped_by"] is None for row in table) == found["kept"] > 36
    assert {row["model"] for row in table} == {"tiny-writer"}
    lines = Path("one/dataset/qrels/train.tsv").read_text().splitlines()[1:]
    assert {tuple(line.split("\t")[:2]) for line in lines} == {
        (row["_id"], row["document_id"]) for row in table if row["dropped_by"] is None
    }
    assert {file.stem for file in Path("one/dataset/qrels").iterdir()} == {"train", "dev", "test"}
    assert server.keys == {f"Bearer {KEY}"}
    everything = [file for place in ("one", "outputs") for file in Path(place).rglob("*") if file.is_file()]
    assert len(everything) > 10
    assert [file for file in everything if KEY.encode() in file.read_bytes()] == []
    page = Path("one/report.html").read_text()
    assert "Generated queries" in page
    assert "These queries are synthetic" in page


def test_nothing_is_asked_twice_and_a_dry_run_says_what_is_left(
    asking: list[str], server: ModelServer, capsys: Any
) -> None:
    price = ["generator.price.input=1", "generator.price.output=2"]
    assert main([*asking, *price, "run.dir=dry", "task.dry_run=true"]) == 0
    told = capsys.readouterr().out
    assert server.requests == 0
    assert "documents  36, 2 queries each\nrequests   " in told
    assert "time       known once the model has answered" in told
    assert main([*asking, "run.dir=one"]) == 0
    asked = server.requests
    assert asked >= 36
    assert main([*asking, "run.dir=two", "generator.filters.round_trip=1", "generator.concurrency=2"]) == 0
    assert server.requests == asked  # thresholds apply again without a request
    assert report("two")["kept"] < report("one")["kept"]
    capsys.readouterr()
    assert main([*asking, *price, "run.dir=dry again", "task.dry_run=true"]) == 0
    told = capsys.readouterr().out
    assert f"requests   {asked}, of which {asked} are answered\ntokens     about 0\nprice      0.00\n" in told


def test_a_changed_template_is_asked_anew_and_costs_what_a_dry_run_says(
    asking: list[str], server: ModelServer, capsys: Any
) -> None:
    one_style = [*asking, "generator.styles.keywords.share=0", "generator.styles.claim.share=0"]
    changed = [*one_style, "generator.styles.question.template=ours.md", "generator.price.input=1000"]
    assert main([*one_style, "run.dir=one"]) == 0
    assert server.requests == 36
    template = Path("ours.md")
    template.write_text('Write {count} questions that a nurse asks.\n\n"""{document}"""\n')
    capsys.readouterr()
    assert main([*changed, "run.dir=dry", "task.dry_run=true"]) == 0
    told = capsys.readouterr().out
    assert "requests   36, of which 0 are answered\n" in told  # the answers to the old template do not count
    tokens, price = (re.findall(rf"{name} +(?:about )?([\d,.]+)", told)[0] for name in ("tokens", "price"))
    assert int(tokens.replace(",", "")) > 36 * 10
    assert float(price) > 0
    assert server.requests == 36
    assert main([*changed, "run.dir=two"]) == 0
    assert server.requests == 2 * 36
    assert report("two")["answered"] == 36
    assert "a nurse asks" in server.bodies[-1]["messages"][0]["content"]
    capsys.readouterr()
    assert main([*changed, "run.dir=dry again", "task.dry_run=true"]) == 0
    assert "requests   36, of which 36 are answered\ntokens     about 0\nprice      0.00\n" in capsys.readouterr().out
    template.write_text('Write {count} questions that a doctor asks.\n\n"""{document}"""\n')
    assert main([*changed, "run.dir=dry third", "task.dry_run=true"]) == 0
    assert "requests   36, of which 0 are answered\n" in capsys.readouterr().out


def test_two_machines_write_about_the_parts_of_a_data_set(asking: list[str], server: ModelServer, capsys: Any) -> None:
    """Each machine has its own store. Filters compare queries only within a part, so the parts may keep more."""
    alone = [*asking, "generator.filters.round_trip=null", "generator.filters.rankers=[bm25]"]
    for number in (0, 1):
        machine = [f"generator.shard={number}/2", f"store.dir=store{number}", f"run.dir=part{number}"]
        assert main([*alone, *machine]) == 0
        assert report(f"part{number}")["requests"] == report(f"part{number}")["answered"]
    asked = server.requests
    assert asked == report("part0")["requests"] + report("part1")["requests"]
    assert main([*alone, "store.dir=store", "run.dir=whole"]) == 0
    assert server.requests == 2 * asked  # the third machine does not have the answers of the other two
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        parts = [Path(f"part{number}/dataset/{name}").read_text().splitlines() for number in (0, 1)]
        whole = set(Path(f"whole/dataset/{name}").read_text().splitlines())
        assert whole <= {*parts[0], *parts[1]}
        assert name != "corpus.jsonl" or whole == set(parts[0]) == set(parts[1])
    journals = [str(next(Path(f"store{number}").rglob("journal.sqlite"))) for number in (0, 1)]
    both = [*alone, f"generator.answers_from=[{','.join(journals)}]", "store.dir=store2"]
    assert main([*both, "run.dir=both"]) == 0
    assert server.requests == 2 * asked
    assert report("both")["answered"] == asked
    assert report("both")["sent"] == 0
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        assert Path(f"both/dataset/{name}").read_bytes() == Path(f"whole/dataset/{name}").read_bytes()
    Path("text.sqlite").write_text("no journal " * 100)
    with closing(sqlite3.connect("other.sqlite")) as database:
        database.execute("PRAGMA user_version = 1")
    for wrong, said in {
        "nowhere.sqlite": "nowhere.sqlite: there is no such journal",
        "text.sqlite": "text.sqlite is not a journal",
        "other.sqlite": "other.sqlite is not a journal of this version of embfit",
        journals[0]: "is the journal of this run; leave it out of generator.answers_from",
    }.items():
        assert main([*alone, f"generator.answers_from=[{wrong}]", "store.dir=store0", "run.dir=wrong"]) == 1
        assert said in " ".join(capsys.readouterr().err.split())


def test_a_judge_grades_what_other_filters_leave(generating: list[str], capsys: Any) -> None:
    def grade(body: dict[str, Any], _: int) -> Answer:
        query = body["messages"][0]["content"].partition("Query: ")[2].partition("\n")[0]
        return says(json.dumps({"grade": 3 if len(query) % 2 else 1}))

    with ModelServer(grade) as server:
        words = ["generator=extractive", "generator.filters.similar=null"]
        judge = [f"generator.filters.judge.{key}" for key in (f"url={server.url}", "model=tiny-judge")]
        assert main([*generating, *words, *judge, "run.dir=dry", "task.dry_run=true"]) == 0
        assert "judge      72 requests to tiny-judge at most, one for each query" in capsys.readouterr().out
        assert server.requests == 0
        assert main([*generating, *words, *judge, "run.dir=one"]) == 0
        found = report("one")
        assert found["kept"] + found["dropped"]["judge"] == server.requests == found["judge_requests"]
        assert 0 < found["dropped"]["judge"] < server.requests
        page = Path("one/report.html").read_text()
        assert "Not answered by their document, says the judge" in page
        assert ", grade 1</span>" in page
        asked = server.requests
        assert main([*generating, *words, *judge, "generator.filters.judge.least=1", "run.dir=two"]) == 0
        assert report("two")["dropped"]["judge"] == 0
        assert server.requests == asked


def test_a_changed_document_is_asked_about_alone(
    asking: list[str], server: ModelServer, tmp_path: Path, capsys: Any
) -> None:
    assert main([*asking, "run.dir=one"]) == 0
    assert "changes" not in report("one")
    asked = server.requests
    before = pq.read_table("one/queries.parquet").to_pylist()
    corpus = tmp_path / "collection" / "corpus.jsonl"
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    rows[3]["text"] = "an entirely new text about the skin and its layers"
    rows.append({"_id": "d99", "title": "Skin", "text": "what is under the skin of the hands and feet"})
    left = [row for row in rows if row["_id"] not in ("d0", "d1")]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in reversed(left)))
    for split in ("train", "dev", "test"):
        qrels = tmp_path / "collection" / "qrels" / f"{split}.tsv"
        kept = [line for line in qrels.read_text().splitlines() if line.split("\t")[1] not in ("d0", "d1")]
        qrels.write_text("\n".join(kept) + "\n")
    capsys.readouterr()
    assert main([*asking, "run.dir=two"]) == 0
    gone = sum(row["dropped_by"] is None and row["document_id"] in ("d0", "d1", "d3") for row in before)
    assert report("two")["changes"] == {"new": 1, "changed": 1, "removed": 2, "queries_gone": gone}
    assert gone > 2
    told = f"since the last generation, 1 document is new, 1 changed and 2 removed; {gone} queries are gone with"
    assert told in capsys.readouterr().err
    assert {row["document_id"] for row in pq.read_table("two/queries.parquet").to_pylist()}.isdisjoint({"d0", "d1"})
    lines = Path("two/dataset/qrels/train.tsv").read_text().splitlines()[1:]
    assert {line.split("\t")[1] for line in lines}.isdisjoint({"d0", "d1"})
    assert len(Path("two/dataset/corpus.jsonl").read_text().splitlines()) == 35
    news = [body["messages"][0]["content"] for body in server.bodies[asked:]]
    assert 2 <= len(news) <= 4
    assert all("skin" in text for text in news)


def test_an_interrupted_run_goes_on(asking: list[str], server: ModelServer, capsys: Any) -> None:
    right = server.answer

    def denied(body: dict[str, Any], before: int) -> Answer:
        time.sleep(0.01)
        return right(body, before) if server.requests < 20 else Answer(401, b"expired")

    server.answer = denied
    assert main([*asking, "run.dir=one"]) == 1
    assert "denies access: 401 Unauthorized: expired; see generator.key_variable" in capsys.readouterr().err
    answered = sum(server.answered.values())
    server.answer = right
    before = server.requests
    assert main([*asking, "run.dir=one"]) == 0
    found = report("one")
    assert server.requests - before == found["requests"] - answered


def test_a_budget_ends_with_what_there_is(asking: list[str], server: ModelServer, capsys: Any) -> None:
    assert main([*asking, "run.dir=one", "generator.budget.requests=10"]) == 0
    found = report("one")
    assert (server.requests, found["answered"]) == (10, 10)
    assert found["waiting"] == found["requests"] - 10
    assert "the budget is used up (generator.budget.requests=10: 10 is used" in capsys.readouterr().err


def test_without_a_model_parts_of_the_documents_are_queries(generating: list[str], capsys: Any) -> None:
    parts = ["generator=extractive", "generator.parts=[sentence, keywords]", "task.masked=true", "generator.masked=1"]
    assert main([*generating, *parts, "run.dir=dry", "task.dry_run=true"]) == 0
    assert capsys.readouterr().out == "documents  36, 2 queries each\nrequests   none: no language model is needed\n"
    assert main([*generating, *parts, "run.dir=one"]) == 0
    found = report("one")
    assert found["generator"] == "extractive"
    assert (found["requests"], found["documents"]) == (0, 36)
    assert found["styles"]["keywords"]["generated"] == 36
    assert len(Path("one/dataset/corpus.jsonl").read_text().splitlines()) == 36  # each sentence is its whole document


URL = "generator.url=http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "generator: task=generate needs a generator"),
        ("generator=api", "generator.url: is not set; add generator.url=http://localhost:8000/v1"),
        (
            f"generator=api generator.model=x {URL} generator.key_variable=sk-abc",
            "expected the name of an environment variable",
        ),
        (
            f"generator=api generator.model=x {URL} generator.key_variable=NOT_SET",
            "generator.key_variable=NOT_SET: the environment variable is not set; put the server's key into it",
        ),
        ("generator=api generator.model=x generator.url=http://a:b@c/v1", "generator.url holds a name, a key"),
        (f"generator=api generator.model=x {URL} generator.budget.cost=3", "budget.cost is set and no price is"),
        (f"generator=api generator.model=x {URL} generator.styles.question.template=nil.md", "no template nil.md"),
        ("generator=extractive generator.documents.min_words=99", "has the 99 words"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(generating: list[str], words: str, said: str, capsys: Any) -> None:
    base = generating if words else [word for word in generating if not word.startswith("generator.")]
    assert main([*base, *words.split(), "run.dir=one"]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert "sk-abc" not in error


def interrupting(server: ModelServer) -> Any:
    """Return what answers twenty requests, and presses Ctrl-C then."""
    right, pressed = server.answer, threading.Event()

    def answer(body: dict[str, Any], before: int) -> Answer:
        if server.requests >= 20 and not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return right(body, before)

    return answer


def test_ctrl_c_ends_with_one_line_and_the_same_command_goes_on(
    asking: list[str], server: ModelServer, capsys: Any
) -> None:
    right, server.answer = server.answer, interrupting(server)
    assert main([*asking, "run.dir=one"]) == 130
    error = capsys.readouterr().err
    assert error.count("interrupted") == 1
    assert "Traceback" not in error
    server.answer = right
    assert main([*asking, "run.dir=one"]) == 0
    assert 0 <= server.requests - report("one")["requests"] <= 8  # those that were under way


def test_a_full_disk_ends_with_one_line_and_the_same_command_goes_on(
    asking: list[str], server: ModelServer, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up = Journal._set_up
    full = lambda self, database: (set_up(self, database), database.execute("PRAGMA max_page_count = 16"))  # noqa: E731
    right, server.answer = server.answer, lambda *_: queries(" ".join(["heart"] * 300))
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_set_up", full)
        assert main([*asking, "run.dir=one"]) == 1
    error = capsys.readouterr().err
    assert error.count("embfit: error: ") == 1
    assert "free some space, or put store.dir on another disk" in error
    assert "Traceback" not in error
    server.answer, before = right, server.requests
    assert 0 < before < 72
    assert main([*asking, "run.dir=one"]) == 0
    assert server.requests - report("one")["requests"] <= 8


def test_a_proxy_in_between_ends_with_one_line(asking: list[str], server: ModelServer, capsys: Any) -> None:
    right, server.answer = server.answer, lambda *_: Answer(body=b"<html>Please log in</html>")
    assert main([*asking, "run.dir=one"]) == 1
    error = capsys.readouterr().err
    assert "no query is kept: none was written" in error
    assert error.count("embfit: error: ") == 1
    assert "Traceback" not in error
    server.answer = right
    assert main([*asking, "run.dir=two", "generator.again=[malformed]"]) == 0
    assert report("two")["malformed"] == 0


def test_queries_in_another_language_find_no_document(asking: list[str], server: ModelServer, capsys: Any) -> None:
    server.answer = lambda *_: queries(f"Welcher Befund liegt bei Fall {server.requests} vor?")
    assert main([*asking, "run.dir=one", "generator.filters.rankers=[bm25]"]) == 1
    assert "no query is kept: filters dropped all of them: round_trip" in capsys.readouterr().err
    found = report("one")
    assert found["dropped"]["round_trip"] == found["generated"] > 36
