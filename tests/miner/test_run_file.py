"""Negatives from a run file: by hand, and what is wrong with a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from embfit.errors import ConfigError, UserError
from embfit.miner import RunFileMiner
from embfit.model import Encoder
from embfit.store import Store
from tests.conftest import make_collection

DOCUMENTS = {name: f"text {name}" for name in "abcdef"}
COLLECTION = make_collection(
    DOCUMENTS, {"other": "x", "q": "y", "r": "z"}, {"train": {"q": {"b": 1, "f": 0}, "r": {"c": 1}}}
)
LINES = [
    "q Q0 a 1 9.0 them",
    "q Q0 c 3 5.0 them",  # the score counts, not the rank
    "q Q0 b 2 6.0 them",
    "other Q0 a 1 1.0 them",
    "q Q0 d 4 5.0 them",
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "them.trec"
    path.write_text("\n".join(LINES) + "\n")
    return path


def test_by_hand(run: Path, store: Store, tiny_encoder: Encoder) -> None:
    training_set = RunFileMiner(negatives=3, depth=4, path=str(run)).mine(COLLECTION, tiny_encoder, store)
    first, second = training_set.rows
    assert first["negatives"] == [5, 0, 2]  # f is judged; then a, and c before d at the same score
    assert first["negative_sources"] == ["judged", "file", "file"]
    assert first["negative_ranks"] == [None, 1, 3]
    assert first["negative_scores"] == [None, 9.0, 5.0]  # the file does not rank f
    assert first["positive_scores"] == [6.0]
    assert (second["negatives"], second["positive_scores"]) == ([], [None])
    assert (training_set.facts["unreached"], training_set.facts["without"]) == (1, 1)


def test_a_margin_under_the_positives_own_score(run: Path, store: Store, tiny_encoder: Encoder) -> None:
    miner = RunFileMiner(negatives=3, depth=4, relative_margin=0.0, path=str(run))
    assert miner.mine(COLLECTION, tiny_encoder, store).rows["negatives"][:] == [[5, 2, 3], []]


def test_depth_and_skip(run: Path, store: Store, tiny_encoder: Encoder) -> None:
    def mined(**window: int) -> list[int]:
        rows = RunFileMiner(negatives=1, path=str(run), **window).mine(COLLECTION, tiny_encoder, store).rows
        negatives: list[int] = rows["negatives"][0]
        return negatives

    assert mined(depth=1) == [5]  # the judged one fills it
    training_set = RunFileMiner(negatives=2, depth=3, skip=1, path=str(run)).mine(COLLECTION, tiny_encoder, store)
    assert training_set.rows["negatives"][0] == [5, 2]


def test_the_store_knows_the_file(run: Path, store: Store, tiny_encoder: Encoder) -> None:
    miner = RunFileMiner(negatives=3, depth=4, path=str(run))
    before = miner.mine(COLLECTION, tiny_encoder, store).rows["negatives"][0]
    run.write_text("q Q0 e 1 1.0 them\n")
    assert miner.mine(COLLECTION, tiny_encoder, store).rows["negatives"][0] == [5, 4] != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 9.0\n", r"them.trec:1: expected 6 columns, got 5"),
        ("q Q0 a 1 high them\n", r"them.trec:1: the score must be a finite number"),
        ("q Q0 a 1 1e39 them\n", r"them.trec:1: the score must be a finite number"),
        (
            "q Q0 a 1 9.0 them\n\nq Q0 zz 2 8 them\n",
            r"them.trec:3: query 'q' ranks 'zz', which is not a document of small",
        ),
        ("p Q0 a 1 9.0 them\n", r"them.trec:1: there is no query 'p' in small"),
        ("q Q0 a 1 9 x\nr Q0 a 1 9 x\nq Q0 a 2 8 x\n", r"them.trec:3: document 'a' is ranked twice for query 'q'"),
        ("other Q0 a 1 9.0 them\n", r"them.trec ranks documents for none of the 2 training queries"),
        ("", r"them.trec: the file is empty"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    run: Path, text: str, message: str, store: Store, tiny_encoder: Encoder
) -> None:
    run.write_text(text)
    with pytest.raises(UserError, match=message):
        RunFileMiner(path=str(run)).mine(COLLECTION, tiny_encoder, store)


def test_documents_that_loading_left_out_are_passed_over(
    run: Path, store: Store, tiny_encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    run.write_text("q Q0 empty 1 9.0 them\nq Q0 d 2 8.0 them\n")
    collection = replace(COLLECTION, left_out=frozenset({"empty", "other"}))
    assert RunFileMiner(path=str(run), depth=4).mine(collection, tiny_encoder, store).rows["negatives"][0] == [5, 3]
    assert "ranks 1 documents that have no text; they are skipped" in caplog.text
    run.write_text("q Q0 empty 1 9.0 them\nq Q0 strange 2 8.0 them\n")  # two, and two were left out
    with pytest.raises(UserError, match=r"ranks 'strange', which is not a document of \S+ \(1 such ids in the file\)"):
        RunFileMiner(path=str(run), depth=4).mine(collection, tiny_encoder, store)


def test_a_file_that_is_not_there_or_not_named(store: Store, tiny_encoder: Encoder) -> None:
    with pytest.raises(UserError, match=r"cannot read nowhere\.trec"):
        RunFileMiner(path="nowhere.trec").mine(COLLECTION, tiny_encoder, store)
    with pytest.raises(ConfigError, match=r"miner\.path=FILE"):
        RunFileMiner().mine(COLLECTION, tiny_encoder, store)
