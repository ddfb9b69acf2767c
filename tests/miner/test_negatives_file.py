"""negatives.jsonl and negatives.parquet: what a person reads, and nothing half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from datasets import Dataset

from embfit.miner import BM25Miner, RandomMiner, negatives_file, write_negatives
from embfit.model import Encoder
from embfit.records import Collection
from embfit.store import Store
from tests.conftest import make_collection


@pytest.fixture
def foxes() -> Collection:
    documents = {"a": "the red fox", "b": "a red red car", "c": "blaue Flüsse", "d": "foxes are red"}
    return make_collection(documents, {"q": "red foxes"}, {"train": {"q": {"a": 1, "c": 0}}})


def test_a_line_says_all_about_a_query(foxes: Collection, store: Store, tiny_encoder: Encoder, tmp_path: Path) -> None:
    training_set = BM25Miner(negatives=2, depth=4).mine(foxes, tiny_encoder, store)
    write_negatives(training_set, tmp_path / "negatives.jsonl", tmp_path / "negatives.parquet")
    (text,) = (tmp_path / "negatives.jsonl").read_text(encoding="utf-8").splitlines()
    assert "Flüsse" in text
    score = training_set.rows["positive_scores"][0][0]
    assert json.loads(text) == {
        "query": {"id": "q", "text": "red foxes"},
        "positives": [{"id": "a", "text": "the red fox", "score": score}],
        "negatives": [
            {"id": "c", "text": "blaue Flüsse", "score": 0.0, "rank": None, "source": "judged"},
            {"id": "d", "text": "foxes are red", "score": score, "rank": 2, "source": "bm25"},
        ],
    }


def test_every_query_has_a_line_in_order(
    small_collection: Collection,
    store: Store,
    tiny_encoder: Encoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(negatives_file, "BLOCK", 3)
    training_set = RandomMiner(3).mine(small_collection, tiny_encoder, store)
    write_negatives(training_set, tmp_path / "negatives.jsonl", tmp_path / "negatives.parquet")
    lines = [json.loads(line) for line in (tmp_path / "negatives.jsonl").read_text(encoding="utf-8").splitlines()]
    table = Dataset.from_parquet(str(tmp_path / "negatives.parquet"), cache_dir=str(tmp_path / "cache"))
    assert list(table) == lines
    assert [line["query"]["id"] for line in lines] == [f"q{row}" for row in range(8)]
    texts = dict(zip(small_collection.document_ids, small_collection.document_texts(), strict=True))
    for line, negatives in zip(lines, training_set.rows["negatives"], strict=True):
        assert [one["id"] for one in line["negatives"]] == [f"d{row}" for row in negatives]
        assert all(one["text"] == texts[one["id"]] for one in line["positives"] + line["negatives"])


def test_a_failure_leaves_what_was_there(
    foxes: Collection, store: Store, tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training_set = RandomMiner(1).mine(foxes, tiny_encoder, store)
    path = tmp_path / "negatives.jsonl"
    path.write_text("before")

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_negatives(training_set, path, tmp_path / "negatives.parquet")
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir() if one.name != "store"] == ["negatives.jsonl"]
