"""`embfit judge` from the command line: from a run over grades to qrels that the next run is measured by."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from embfit.app import main
from embfit.data.qrels import read_qrels
from tests.task.conftest import SPLITS, FineTuning
from tests.task.test_review import page


@pytest.fixture
def evaluated(fine_tuning: FineTuning, command: list[str]) -> list[str]:
    """The overrides of a run in `evaluated`, whose data are in this test's folder."""
    asked = ["task=evaluate", *(word for word in command if not word.startswith("training."))]
    assert main([*asked, "run.dir=evaluated"]) == 0
    return asked


def test_judgements_join_those_that_there_are(evaluated: list[str], capsys: Any) -> None:
    capsys.readouterr()
    assert main(["judge", "evaluated", "--cards", "30", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    data = page("judge.html")
    pairs = [(query, data["documents"][place][0]) for query, _, place, *_ in data["cards"]]
    queries = list(dict.fromkeys(query for query, _ in pairs))
    assert lines[1] == f"cards      {len(pairs)}, the whole of {len(queries)} of 6 queries"
    assert lines[2] == "grades     those of the data end at 1; --highest 1 asks for no higher ones"
    assert len(pairs) <= 30
    assert all(document != f"d{query[1:]}" for query, document in pairs)  # those are judged
    assert not any(system in json.dumps(data) for system in ("base", "bm25"))  # a judge is blind
    graded = [
        {"query_id": query, "document_id": document, "grade": place % 3}
        for place, (query, document) in enumerate(pairs)
    ]
    graded += [{"query_id": queries[0], "document_id": f"d{queries[0][1:]}", "grade": 0}]
    Path("judgements.jsonl").write_text("".join(json.dumps(line) + "\n" for line in graded))
    assert main(["judge", "evaluated", "--read", "judgements.jsonl"]) == 0
    told = capsys.readouterr().out
    counts = [len(pairs[place::3]) for place in range(3)]
    assert f"new        {len(pairs)}: {counts[0]} of grade 0, {counts[1]} of grade 1, {counts[2]} of grade 2" in told
    assert f"1 by the data, 0 by judgements.jsonl:{len(graded)}; the first counts" in told
    assert f"all        {6 + len(pairs)} judgements of 6 queries: judged.qrels" in told
    merged = read_qrels(Path("judged.qrels"))
    assert merged[queries[0]][f"d{queries[0][1:]}"] == 1
    assert {(query, document): merged[query][document] for query, document in pairs} == {
        pair: place % 3 for place, pair in enumerate(pairs)
    }
    use = told.splitlines()[-1].removeprefix("use it     python -m embfit ").split()
    assert main([*use, "run.dir=again", "evaluator.resamples=200"]) == 0
    capsys.readouterr()
    assert main(["judge", "again", "--cards", "1000", "--out", "second.html"]) == 0
    left = {(query, document) for query, _, place, *_ in page("second.html")["cards"]
            for document in [page("second.html")["documents"][place][0]]}  # fmt: skip
    assert left
    assert not left & set(pairs)


def test_the_command_that_measures_again_is_of_the_split_and_the_models_of_the_run(
    command: list[str], capsys: Any, tmp_path: Path
) -> None:
    """Of a fine-tuning: judgements of production measure production, and the tuned model beside the base."""
    qrels = tmp_path / "collection" / "qrels"
    (qrels / "dev.tsv").rename(qrels / "users.tsv")
    words = ["data.dev_share=0", "training.steps=2", "evaluator.production=users", "run.dir=run"]
    assert main([*command, *words]) == 0
    capsys.readouterr()
    assert main(["judge", "run", "--split", "users", "--systems", "base-users", "--cards", "9"]) == 0
    [query, _, place, *_], *_ = page("judge.html")["cards"]
    document = page("judge.html")["documents"][place][0]
    Path("judgements.jsonl").write_text(json.dumps({"query_id": query, "document_id": document, "grade": 1}) + "\n")
    capsys.readouterr()
    assert main(["judge", "run", "--split", "users", "--read", "judgements.jsonl"]) == 0
    use = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("use it     python -m embfit "))
    assert use[-4:] == ["evaluator.split=users", "tuned=run/model", use[-2], "task.qrels=judged.qrels"]
    assert use[-2].startswith("task.systems=[base, tuned, bm25")
    assert main([*use, "run.dir=again"]) == 0
    assert {"base", "tuned", "bm25"} <= json.loads(Path("again/report.json").read_text())["systems"].keys()
    ranked = Path("again/rankings/tuned.trec").read_text().splitlines()
    assert {line.split()[0] for line in ranked} == {f"q{row}" for row in SPLITS["dev"]}


def test_what_cannot_be_judged_is_told_in_one_line(evaluated: list[str], capsys: Any) -> None:
    capsys.readouterr()
    for words, said in (
        ("nowhere", "nowhere is not the folder of a run: it has no config.yaml"),
        ("evaluated --systems bm52", "has no bm52.trec; did you mean bm25? it has base, bm25"),
        ("evaluated --split tset", "collection has no split 'tset'; its splits: dev, test, train"),
        ("evaluated --read nil.jsonl", "cannot read nil.jsonl: No such file or directory"),
        ("evaluated --out nowhere/page.html", "nowhere is not a folder"),
        ("evaluated --highest 7", "invalid choice: 7"),
    ):
        assert main(["judge", *words.split()]) in (1, 2)
        error = capsys.readouterr().err
        assert said in error
        assert error.count("embfit: error: ") == 1
        assert error.splitlines()[-1].startswith("embfit: error: ")


def test_a_run_begun_elsewhere_is_judged_from_there(
    evaluated: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree("evaluated", tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["judge", "copy"]) == 1
    assert (
        f"copy began in {tmp_path / 'work'}, where its relative paths start; run this command"
        in capsys.readouterr().err
    )
