import json
import shutil

import datasets
import pytest

from embfit.data import Hub
from embfit.errors import ConfigError, UserError
from embfit.store import Store
from tests.data.conftest import write_jsonl

DOCUMENTS = [{"_id": str(n), "title": f"title {n}", "text": f"text {n}"} for n in range(5)]
QUERIES = [{"_id": f"q{n}", "text": f"question {n}"} for n in range(3)]


def readme(**configs):
    """The head of a data set's card: files by split and configuration."""
    listed = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in files.items()]}
        for name, files in configs.items()
    ]
    return f"---\nconfigs: {json.dumps(listed)}\n---\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def mteb(tmp_path):
    """A folder with the files of `mteb/scifact`: judgements are its default configuration."""
    folder = tmp_path / "scifact"
    write_jsonl(folder / "corpus.jsonl", DOCUMENTS)
    write_jsonl(folder / "queries.jsonl", QUERIES)
    judged = [{"query-id": f"q{n}", "corpus-id": str(n), "score": 1.0} for n in range(3)]
    write_jsonl(folder / "qrels" / "train.jsonl", judged[:2])
    write_jsonl(folder / "qrels" / "test.jsonl", judged[2:])
    card = readme(
        default={"train": "qrels/train.jsonl", "test": "qrels/test.jsonl"},
        corpus={"corpus": "corpus.jsonl"},
        queries={"queries": "queries.jsonl"},
    )
    (folder / "README.md").write_text(card)
    return folder


def test_judgements_in_the_same_data_set(mteb, tmp_path):
    store = Store(tmp_path / "store")
    collection = Hub(str(mteb)).load(store)
    assert collection.name == "scifact"
    assert list(collection.document_texts()) == [f"title {n} text {n}" for n in range(5)]
    assert collection.query_ids == ["q0", "q1", "q2"]
    assert collection.qrels == {"train": {"q0": {"0": 1}, "q1": {"1": 1}}, "test": {"q2": {"2": 1}}}
    again = Store(tmp_path / "store")
    Hub(str(mteb)).load(again)
    assert again.built == []


def test_judgements_in_a_data_set_of_their_own(tmp_path, store):
    folder, judged = tmp_path / "fever", tmp_path / "fever-qrels"
    folder.mkdir()
    judged.mkdir()
    datasets.Dataset.from_list(DOCUMENTS).to_parquet(folder / "corpus" / "corpus-00000-of-00001.parquet")
    datasets.Dataset.from_list(QUERIES).to_parquet(folder / "queries" / "queries-00000-of-00001.parquet")
    (folder / "README.md").write_text(readme(corpus={"corpus": "corpus/*"}, queries={"queries": "queries/*"}))
    (judged / "validation.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t1\t2\nq1\t9\t1\n")
    (judged / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\t0\t1\n")
    collection = Hub(str(folder), qrels=str(judged)).load(store)
    assert collection.qrels == {"dev": {"q1": {"1": 2}}, "test": {"q0": {"0": 1}}}
    assert collection.facts["unknown_judgements_left_out"] == 1
    assert list(Hub(str(folder), qrels=str(judged), splits=["test"]).load(store).qrels) == ["test"]
    with pytest.raises(UserError, match=r"row 2: the document \"9\" is not in the corpus"):
        Hub(str(folder), qrels=str(judged), skip_unknown=False).load(store)


def test_what_is_not_there(mteb, store):
    with pytest.raises(ConfigError, match=r"data\.name=ORGANISATION/NAME"):
        Hub().load(store)
    with pytest.raises(UserError, match=r"cannot load \"en-corpus\" of .*: BuilderConfig 'en-corpus' not found"):
        Hub(str(mteb), corpus_config="en-corpus").load(store)
    with pytest.raises(UserError, match=r"name the configurations that it has with data\.corpus_config"):
        Hub(str(mteb), queries_config="questions").load(store)
    with pytest.raises(UserError, match=r"there is no \"_id\"; the record has query-id, corpus-id, score"):
        Hub(str(mteb), corpus_config="default").load(store)
    with pytest.raises(UserError, match=r"has no split \"dev\"; it has train, test"):
        Hub(str(mteb), splits=["dev"]).load(store)


def test_grades_must_be_whole(mteb, store):
    write_jsonl(mteb / "qrels" / "test.jsonl", [{"query-id": "q2", "corpus-id": "2", "score": 0.5}])
    with pytest.raises(UserError, match=r"test: row 1: \"score\" must be a whole number, got 0\.5"):
        Hub(str(mteb)).load(store)


def test_offline_is_one_clear_line(store):
    with pytest.raises(UserError) as error:
        Hub("BeIR/scifact").load(store)
    assert str(error.value) == (
        'HF_HUB_OFFLINE is set, and "corpus" of BeIR/scifact is not in the local cache; '
        "load it once with a connection, or use files: data=beir data.path=DIR"
    )


def test_the_local_cache_is_enough(mteb, store, cache):
    for config in ("corpus", "queries", "default"):
        datasets.load_dataset(str(mteb), config)
    (cache / "scifact").rename(cache / "mteb___scifact")  # where the Hub's data set of that name would be
    shutil.rmtree(mteb)
    assert Hub("mteb/scifact").load(store).qrels["test"] == {"q2": {"2": 1}}


def test_newer_data_sets_call_ids_id_judgements_qrels_and_cut_the_corpus(tmp_path, store):
    folder = tmp_path / "newer"
    texts = [{"id": row["_id"], "text": row["text"]} for row in DOCUMENTS]
    write_jsonl(folder / "corpus" / "dev.jsonl", texts[:3])
    write_jsonl(folder / "corpus" / "test.jsonl", texts[2:])  # one stands in both
    write_jsonl(folder / "queries.jsonl", [{"id": row["_id"], "text": row["text"]} for row in QUERIES])
    write_jsonl(folder / "qrels.jsonl", [{"query-id": "q0", "corpus-id": "4", "score": 1}])
    card = readme(
        corpus={"dev": "corpus/dev.jsonl", "test": "corpus/test.jsonl"},
        queries={"test": "queries.jsonl"},
        qrels={"test": "qrels.jsonl"},
    )
    (folder / "README.md").write_text(card)
    collection = Hub(str(folder)).load(store)
    assert collection.document_ids == ["0", "1", "2", "3", "4"]
    assert collection.qrels == {"test": {"q0": {"4": 1}}}


def test_one_id_for_two_texts_of_a_corpus_in_splits_is_refused(tmp_path, store):
    folder = tmp_path / "newer"
    write_jsonl(folder / "a.jsonl", [{"id": "1", "text": "one"}])
    write_jsonl(folder / "b.jsonl", [{"id": "1", "text": "another"}])
    write_jsonl(folder / "qrels.jsonl", [{"query-id": "1", "corpus-id": "1", "score": 1}])
    card = readme(corpus={"a": "a.jsonl", "b": "b.jsonl"}, queries={"a": "a.jsonl"}, qrels={"test": "qrels.jsonl"})
    (folder / "README.md").write_text(card)
    with pytest.raises(UserError, match=r'corpus b: row 1: the id "1" is already used in .* corpus a: row 1'):
        Hub(str(folder)).load(store)


def test_judgements_of_what_the_data_lacks_are_told_with_their_share(mteb, store, caplog):
    judged = [{"query-id": "q2", "corpus-id": name, "score": 1} for name in ("2", "90", "91")]
    write_jsonl(mteb / "qrels" / "test.jsonl", judged)
    collection = Hub(str(mteb)).load(store)
    assert collection.facts["unknown_judgements"] == {"test": {"left_out": 2, "of": 3}}
    told = [record for record in caplog.records if record.getMessage().startswith("test: 2 of 3 judgements (67%) name")]
    assert [record.levelname for record in told] == ["WARNING"]
