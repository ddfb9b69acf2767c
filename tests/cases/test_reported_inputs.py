"""Small inputs that people reported as going wrong in tools of this kind, with the right values.

The same kinds are tested in their rooms with inputs of their own; these are the reported ones, where they are there.
"""

import logging

import datasets
import pytest

from embfit.data import Beir, Hub, Pairs
from embfit.data.trec import read_run, write_run
from embfit.errors import UserError
from embfit.evaluator import Retrieval
from embfit.evaluator.systems import evaluate_bm25, evaluate_encoder
from embfit.model import Pretrained
from embfit.records import Ranking


@pytest.fixture
def warnings(caplog):
    """Return what embfit has warned of so far."""
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dense_after_norm", 0.7605), ("lower_bpe", 0.7821), ("modernbert_tf4", 0.7748), ("nopad", 0.9385)],
)
def test_model_folders(shared_cases, store, name, expected):
    model = Pretrained(path=str(shared_cases / "models" / name), precision="fp32")
    context = Retrieval().context(Beir(str(shared_cases / "base")).load(store), store, model, ("cpu",))
    assert evaluate_encoder("base", context.encoder, context).metrics["ndcg@10"] == pytest.approx(expected, abs=1e-4)


def test_a_split_that_has_every_training_query(shared_cases, store):
    with pytest.raises(UserError) as refusal:
        Beir(str(shared_cases / "train_dev")).load(store)
    assert str(refusal.value) == (
        "all 28 training queries are also in split train_dev; name the splits you mean: data.splits=[train,dev,test]"
    )
    named = Beir(str(shared_cases / "train_dev"), splits=["train", "dev", "test"]).load(store)
    assert {split: len(judged) for split, judged in named.qrels.items()} == {"train": 28, "dev": 6, "test": 6}


def test_a_split_that_has_most_training_queries(shared_cases, store, warnings):
    assert len(Beir(str(shared_cases / "subset")).load(store).qrels["train"]) == 8
    assert warnings() == [
        "20 of 28 training queries are also in split train-sample (qrels/train-sample.tsv) and are not trained on; if "
        "it is not for evaluation, name the splits you mean: data.splits=[train,dev,test]"
    ]


def test_hidden_files(shared_cases, store):
    loaded = Beir(str(shared_cases / "macos")).load(store)
    assert {split: len(judged) for split, judged in loaded.qrels.items()} == {"train": 12, "dev": 6, "test": 6}


def test_chinese_without_spaces(shared_cases, store):
    context = Retrieval().context(Beir(str(shared_cases / "zh")).load(store), store, Pretrained(path=None))
    assert evaluate_bm25(context).metrics["ndcg@10"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["ids_nbsp", "ids_trail"])
def test_blanks_in_ids(shared_cases, store, tmp_path, name):
    collection = Beir(str(shared_cases / name)).load(store)
    assert sum(map(len, collection.qrels.values())) == 24
    ranking = Ranking.of({query: [(name, 1.0) for name in found] for query, found in collection.qrels["test"].items()})
    write_run(tmp_path / "run.trec", ranking, "exact")
    assert read_run(tmp_path / "run.trec").documents == ranking.documents


def test_judgements_of_unknown_documents(shared_cases, store, warnings, hub_cache):
    Hub(str(shared_cases / "hub_unknown")).load(store)
    [warning] = warnings()
    assert warning.startswith("test: 54 of 60 judgements (90%) name documents or queries that the data lacks")


def test_a_newer_data_set(shared_cases, store, hub_cache):
    collection = Hub(str(shared_cases / "hub_v2")).load(store)
    assert (len(collection.corpus), len(collection.qrels["test"])) == (24, 24)


def test_passages_as_objects(shared_cases, store):
    columns = {"positive": "positive_passages", "negatives": "negative_passages", "query_id": "query_id"}
    collection = Pairs(str(shared_cases / "tevatron" / "train.jsonl"), **columns).load(store)
    assert collection.document_ids[:3] == ["d0", "d1", "d2"]
    assert next(collection.document_texts()) == "T The river and the battery are described here in note 0."
    assert collection.facts["given_negatives"] == 40


def test_no_pair_is_relevant(shared_cases, store):
    with pytest.raises(UserError, match=r"none of the 40 pairs is relevant \(data\.label\)"):
        Pairs(str(shared_cases / "all0" / "train.jsonl"), label="label").load(store)


def test_a_time_for_a_grade(shared_cases, store):
    with pytest.raises(UserError, match=r'dev\.tsv:2: "grade" is 1,700,000,000, and .* at most 1,000,000'):
        Beir(str(shared_cases / "big")).load(store)
