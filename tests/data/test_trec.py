from pathlib import Path

import numpy as np
import pytest

from embfit.data.qrels import read_qrels
from embfit.data.trec import falling, read_run, write_qrels, write_run
from embfit.errors import UserError
from embfit.evaluator.metrics import per_query
from embfit.records import Ranking


def test_a_run_file_comes_back_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((3, 50), np.float32)
    ranking = Ranking.of(
        {f"q{row}": [(f"d{i}", float(score)) for i, score in enumerate(scores[row])] for row in range(3)}
    )
    write_run(tmp_path / "base.trec", ranking, "base")
    again = read_run(tmp_path / "base.trec").documents
    for query, documents in ranking.documents.items():
        assert [(name, np.float32(score)) for name, score in again[query]] == list(documents)


def test_a_run_file_has_six_columns(tmp_path: Path) -> None:
    write_run(tmp_path / "run", Ranking.of({"q1": [("b", 0.5), ("a", 0.25)]}), "my model")
    assert (tmp_path / "run").read_text() == "q1 Q0 b 1 0.5 my_model\nq1 Q0 a 2 0.25 my_model\n"


def test_ties_fall_by_one_float32_step_so_that_every_tool_reads_the_same_order(tmp_path: Path) -> None:
    tied = Ranking.of({"q": [("c", 0.5), ("a", 0.5), ("b", 0.5), ("d", 0.25)]})
    scores = falling(tied.documents["q"])
    half = np.float32(0.5)
    below = np.nextafter(half, np.float32(0))
    assert scores.tolist() == [half, below, np.nextafter(below, np.float32(0)), 0.25]

    write_run(tmp_path / "run", tied, "x")
    pairs = [(line.split()[2], np.float32(line.split()[4])) for line in (tmp_path / "run").read_text().splitlines()]
    by_larger_id_first = sorted(sorted(pairs, reverse=True), key=lambda pair: -pair[1])  # as trec_eval breaks ties
    assert [name for name, _ in by_larger_id_first] == ["a", "b", "c", "d"]
    again = read_run(tmp_path / "run")
    assert per_query(again, {"q": {"b": 1}}, ["mrr@10"]) == per_query(tied, {"q": {"b": 1}}, ["mrr@10"])


def test_a_ranking_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="best first"):
        falling([("a", 1.0), ("b", 2.0)])


def test_ids_with_spaces_are_parted_by_tabs(tmp_path: Path) -> None:
    ranking = Ranking.of({"my query": [("a b", 2.0), ("c", 1.0)]})
    write_run(tmp_path / "run", ranking, "x")
    assert read_run(tmp_path / "run").documents == ranking.documents
    write_qrels(tmp_path / "qrels", {"my query": {"a b": 2}})
    assert read_qrels(tmp_path / "qrels") == {"my query": {"a b": 2}}


def test_ids_that_no_line_can_carry_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the id 'a\\tb' contains a tab or a line break"):
        write_run(tmp_path / "run", Ranking.of({"q": [("a\tb", 1.0)]}), "x")
    assert list(tmp_path.iterdir()) == []


def test_qrels_come_back_as_they_were(tmp_path: Path) -> None:
    qrels = {"q1": {"a": 2, "b": 0}, "q2": {"a": 0, "c": 1}}
    write_qrels(tmp_path / "qrels", qrels)
    assert (tmp_path / "qrels").read_text().splitlines()[0] == "q1 0 a 2"
    assert read_qrels(tmp_path / "qrels") == qrels


def test_a_run_of_other_tools_is_ranked_by_score(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("q\tQ0\tb\t2\t1e-3\tx\n\nq  Q0 a 1   3 x\r\nq Q0 c 1 1e-3 x\n")
    assert read_run(tmp_path / "run").documents == {"q": [("a", 3.0), ("b", 1e-3), ("c", 1e-3)]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 2 x\nq Q0 b 2\n", r"run:2: expected 6 columns, got 4"),
        ("q Q0 a 1 high x\n", r"run:1: the score must be a finite number, got 'high'"),
        ("q Q0 a 1 nan x\n", r"run:1: the score must be a finite number, got 'nan'"),
        ("q Q0 a 1 2 x\n\nq Q0 a 2 1 x\n", r"run:3: document 'a' is ranked twice for query 'q'"),
        ("\n", r"run: the file is empty"),
    ],
)
def test_a_malformed_run_is_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run").write_text(text)
    with pytest.raises(UserError, match=message):
        read_run(tmp_path / "run")


def test_a_missing_or_undecodable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing: No such file"):
        read_run(tmp_path / "missing")
    (tmp_path / "latin").write_bytes("q Q0 e 1 2 x\nq Q0 é 1 1 x\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin:2: not UTF-8 \(byte 0xe9 at position 6\)"):
        read_run(tmp_path / "latin")


def test_a_mark_of_the_byte_order_is_no_part_of_a_query(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("\ufeffq1 Q0 a 1 3 x\nq1 Q0 b 2 2 x\n")
    assert read_run(tmp_path / "run").documents == {"q1": [("a", 3.0), ("b", 2.0)]}


@pytest.mark.parametrize("name", ["a\u00a0b", "Rapport n\u00a0: 1", "\u2003wide\u2003", "a  b", "tail\u0085"])
def test_what_is_written_is_read_back_to_the_same_ids(tmp_path: Path, name: str) -> None:
    ranking = Ranking.of({"q\u00a01": [(name, 2.0), ("plain", 1.0)]})
    write_run(tmp_path / "run", ranking, "x")
    assert read_run(tmp_path / "run").documents == ranking.documents
    write_qrels(tmp_path / "qrels", {"q\u00a01": {name: 1, "plain": 0}})
    assert read_qrels(tmp_path / "qrels") == {"q\u00a01": {name: 1, "plain": 0}}


@pytest.mark.parametrize("name", [" a", "a ", "a\n"])
def test_an_id_that_would_not_be_read_back_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="begins or ends with a blank"):
        write_qrels(tmp_path / "qrels", {"q": {name: 1}})
    assert list(tmp_path.iterdir()) == []
