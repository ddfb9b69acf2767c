"""What other trainers read: columns and rows by hand, and a step of sentence-transformers' own trainers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset, disable_progress_bars, load_dataset

from embfit.miner import BM25Miner, NoNegatives, RandomMiner, write_negatives
from embfit.miner.export_formats import ExportFormat
from embfit.model import CrossEncoder, Encoder, save_cross_encoder, save_encoder
from embfit.records import Collection, TrainingSet
from embfit.store import Store
from tests.conftest import make_collection


@pytest.fixture
def mined(store: Store, tiny_encoder: Encoder) -> TrainingSet:
    """A query with two positives and two negatives, and one with a single negative."""
    documents = {"a": "the red fox", "b": "a red car", "c": "blue", "d": "foxes are red", "e": "blue car"}
    judgements = {"q": {"a": 1, "d": 2, "b": 0, "c": 0}, "r": {"e": 1, "c": 0}}
    collection = make_collection(documents, {"q": "red foxes", "r": "a blue car"}, {"train": judgements})
    return BM25Miner(2, depth=2, max_score=-1.0).mine(collection, tiny_encoder, store)


def written(training_set: TrainingSet, layout: ExportFormat, folder: Path) -> tuple[list[dict[str, object]], int]:
    """Write and read back, from both files the same."""
    lines, table = folder / "negatives.jsonl", folder / "negatives.parquet"
    left_out = write_negatives(training_set, lines, table, layout)
    found = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert list(Dataset.from_parquet(str(table), cache_dir=str(folder / "cache"))) == found
    return found, left_out


def test_triplets(mined: TrainingSet, tmp_path: Path) -> None:
    rows, left_out = written(mined, "triplet", tmp_path)
    red = [
        {"query": "red foxes", "positive": positive, "negative": negative}
        for positive in ("foxes are red", "the red fox")
        for negative in ("a red car", "blue")
    ]
    assert rows == [*red, {"query": "a blue car", "positive": "blue car", "negative": "blue"}]
    assert left_out == 0


def test_tuples_have_as_many_negatives_as_were_wanted(mined: TrainingSet, tmp_path: Path) -> None:
    rows, left_out = written(mined, "n-tuple", tmp_path)
    assert rows == [
        {"query": "red foxes", "positive": positive, "negative_1": "a red car", "negative_2": "blue"}
        for positive in ("foxes are red", "the red fox")
    ]
    assert left_out == 1


def test_labelled_lists(mined: TrainingSet, tmp_path: Path) -> None:
    rows, left_out = written(mined, "labeled-list", tmp_path)
    assert rows == [
        {
            "query": "red foxes",
            "documents": ["foxes are red", "the red fox", "a red car", "blue"],
            "labels": [1, 1, 0, 0],
        },
        {"query": "a blue car", "documents": ["blue car", "blue"], "labels": [1, 0]},
    ]
    assert left_out == 0


def test_without_negatives_tuples_are_pairs(
    small_collection: Collection, store: Store, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    rows, left_out = written(NoNegatives().mine(small_collection, tiny_encoder, store), "n-tuple", tmp_path)
    assert [list(row) for row in rows] == [["query", "positive"]] * 8
    assert left_out == 0


def of_file(training_set: TrainingSet, layout: ExportFormat, folder: Path) -> Dataset:
    disable_progress_bars()
    write_negatives(training_set, folder / "negatives.jsonl", folder / "negatives.parquet", layout)
    files = str(folder / "negatives.jsonl")
    return load_dataset("json", data_files=files, split="train", cache_dir=str(folder / "cache"))


def test_an_encoder_learns_from_tuples_elsewhere(
    small_collection: Collection, store: Store, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    peer = pytest.importorskip("sentence_transformers")
    losses = pytest.importorskip("sentence_transformers.losses")
    save_encoder(tiny_encoder, tmp_path / "tiny")
    model = peer.SentenceTransformer(str(tmp_path / "tiny"), device="cpu")
    rows = of_file(RandomMiner(2).mine(small_collection, tiny_encoder, store), "n-tuple", tmp_path)
    settings = {"max_steps": 1, "per_device_train_batch_size": 4, "report_to": "none", "use_cpu": True}
    arguments = peer.SentenceTransformerTrainingArguments(str(tmp_path / "out"), save_strategy="no", **settings)
    before = model.encode("red foxes")
    loss = losses.MultipleNegativesRankingLoss(model)
    peer.SentenceTransformerTrainer(model, arguments, rows, loss=loss).train()
    assert abs(model.encode("red foxes") - before).max() > 0


def test_a_cross_encoder_learns_from_lists_elsewhere(
    small_collection: Collection, store: Store, tiny_encoder: Encoder, tiny_ranker: CrossEncoder, tmp_path: Path
) -> None:
    peer = pytest.importorskip("sentence_transformers.cross_encoder")
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    save_cross_encoder(tiny_ranker, tmp_path / "tiny")
    model = peer.CrossEncoder(str(tmp_path / "tiny"), device="cpu")
    rows = of_file(RandomMiner(2).mine(small_collection, tiny_encoder, store), "labeled-list", tmp_path)
    settings = {"max_steps": 1, "per_device_train_batch_size": 4, "report_to": "none", "use_cpu": True}
    arguments = peer.CrossEncoderTrainingArguments(str(tmp_path / "out"), save_strategy="no", **settings)
    before = model.predict([("red foxes", "a fox")])
    peer.CrossEncoderTrainer(model, arguments, rows, loss=losses.ListNetLoss(model)).train()
    assert abs(model.predict([("red foxes", "a fox")]) - before).max() > 0
