import json

import pytest

from embfit.data import Beir
from embfit.errors import ConfigError, UserError
from embfit.store import Store

DOCUMENTS = {"d1": "one", "d2": "two", "d3": "three"}
QUERIES = {"q1": "first", "q2": "second"}


def load(folder, store, **settings):
    return Beir(str(folder), **settings).load(store)


def test_a_folder_becomes_a_collection(beir_folder, store):
    folder = beir_folder(DOCUMENTS, QUERIES, train=["q1\td1\t2", "q1\td2\t0"], test=["q2\td3\t1"])
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": 4, "title": "T", "text": "four", "metadata": {}}\n')
    collection = load(folder, store)
    assert collection.name == "small"
    assert collection.document_ids == ["d1", "d2", "d3", "4"]
    assert list(collection.document_texts()) == ["one", "two", "three", "T four"]
    assert list(collection.query_texts()) == ["first", "second"]
    assert collection.qrels == {"train": {"q1": {"d1": 2, "d2": 0}}, "test": {"q2": {"d3": 1}}}
    assert collection.facts == {
        "documents": 4,
        "queries": 2,
        "train_queries": 1,
        "train_pairs": 1,
        "train_not_relevant": 1,
        "test_queries": 1,
        "test_pairs": 1,
        "test_not_relevant": 0,
        "held_out": "",
        "not_held_out": "dev",
        "train_queries_left_out": 0,
        "queries_merged": 0,
        "leaked_queries_removed": 0,
        "leaked_pairs_removed": 0,
        "dev_queries_removed": 0,
        "test_queries_seen_in_train": 0,
        "repeated_judgements": 0,
        "grades_below_zero": 0,
        "documents_without_text_left_out": 0,
        "judged_documents_without_text": 0,
        "queries_without_text_left_out": 0,
        "unknown_judgements_left_out": 0,
    }
    json.dumps(collection.facts)


def test_scifact_is_what_it_is_published_as(shared_data, store):
    whole = Beir(str(shared_data / "scifact"), dev_share=0.0).load(store)
    facts = whole.facts
    assert (facts["documents"], facts["queries"], facts["test_queries"], facts["test_pairs"]) == (5183, 1109, 300, 339)
    # 809 training queries and 919 pairs; two texts occur twice, two others are test queries
    assert (facts["train_queries"], facts["queries_merged"], facts["leaked_queries_removed"]) == (805, 2, 2)
    cut = Beir(str(shared_data / "scifact")).load(store)
    assert cut.qrels["test"] == whole.qrels["test"]
    assert cut.facts["held_out"] == "dev"
    assert {**cut.qrels["train"], **cut.qrels["dev"]} == whole.qrels["train"]
    assert cut.facts["train_queries"] + cut.facts["dev_queries"] == 805
    assert cut.facts["dev_queries"] == 80
    assert cut.facts["dev_queries_seen_in_train"] == 40  # the other half asks for documents that training never sees


def test_scifact_has_196_test_queries_with_documents_of_its_published_training_split(shared_data, store):
    documents = {}
    for split in ("train", "test"):
        lines = (shared_data / "scifact" / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]
        documents[split] = [line.split("\t")[:2] for line in lines]
    seen = {document for _, document in documents["train"]}
    assert len({query for query, document in documents["test"] if document in seen}) == 196
    assert len(documents["train"]) == 919


def test_the_second_load_comes_from_the_store(beir_folder, tmp_path):
    folder = beir_folder(DOCUMENTS, QUERIES, train=["q1\td1\t1"], test=["q2\td3\t1"])
    first, second, third = (Store(tmp_path / "store") for _ in range(3))
    before = load(folder, first)
    again = load(folder, second)
    assert (first.built, first.reused) == (["collection", "splits"], [])
    assert (second.built, second.reused) == ([], ["collection", "splits"])
    assert (again.qrels, again.facts, again.corpus_digest) == (before.qrels, before.facts, before.corpus_digest)
    (folder / "qrels" / "test.tsv").write_text("q2\td2\t1\n")
    assert load(folder, third).qrels["test"] == {"q2": {"d2": 1}}
    assert third.built == ["collection", "splits"]


def test_another_split_seed_does_not_parse_again(chain, tmp_path):
    load(chain, Store(tmp_path / "store"))
    store = Store(tmp_path / "store")
    load(chain, store, split_seed=1)
    assert (store.built, store.reused) == (["splits"], ["collection"])


def test_texts_that_are_missing_are_counted(beir_folder, store):
    documents = {**DOCUMENTS, "d4": " ", "d5": ""}
    queries = {**QUERIES, "q3": "\t"}
    folder = beir_folder(documents, queries, train=["q1\td1\t1", "q1\td5\t1", "q3\td2\t1"], test=["q2\td3\t1"])
    collection = load(folder, store)
    assert collection.document_ids == ["d1", "d2", "d3", "d5"]
    assert collection.query_ids == ["q1", "q2"]
    assert collection.qrels["train"] == {"q1": {"d1": 1, "d5": 1}}
    facts = collection.facts
    assert facts["documents_without_text_left_out"] == facts["judged_documents_without_text"] == 1
    assert facts["queries_without_text_left_out"] == 1
    assert collection.left_out == {"d4"}


def test_judgements_made_twice_or_below_zero(beir_folder, store):
    train = ["q1\td1\t1", "q1\td1\t2", "q1\td2\t-2"]
    collection = load(beir_folder(DOCUMENTS, QUERIES, train=train, test=["q2\td3\t1"]), store)
    assert collection.qrels["train"] == {"q1": {"d1": 2, "d2": 0}}
    assert (collection.facts["repeated_judgements"], collection.facts["grades_below_zero"]) == (1, 1)


def test_unknown_ids_can_be_skipped(beir_folder, store):
    train = ["q1\td1\t1", "q1\td9\t1", "q9\td1\t1"]
    folder = beir_folder(DOCUMENTS, QUERIES, train=train, test=["q2\td3\t1"])
    with pytest.raises(UserError) as error:
        load(folder, store)
    assert str(error.value) == (
        f'{folder}/qrels/train.tsv:3: the document "d9" is not in the corpus (2 judgements have unknown ids); '
        "correct the ids, or skip such judgements with data.skip_unknown=true"
    )
    collection = load(folder, store, skip_unknown=True)
    assert collection.qrels["train"] == {"q1": {"d1": 1}}
    assert collection.facts["unknown_judgements_left_out"] == 2


def test_splits_can_be_chosen_and_validation_is_dev(beir_folder, store):
    folder = beir_folder(DOCUMENTS, QUERIES, validation=["q1\td1\t1"], test=["q2\td3\t1"], other=["q2\td2\t1"])
    assert list(load(folder, store).qrels) == ["dev", "test", "other"]
    assert list(load(folder, store, splits=["test"]).qrels) == ["test"]
    with pytest.raises(UserError, match=r'small/qrels has no split "dev"; it has other, test, validation$'):
        load(folder, store, splits=["dev"])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", b'{"_id": "d1", "text": "one"}\n{"_id"', "small/corpus.jsonl:2: not valid JSON: "),
        (
            "corpus.jsonl",
            b'{"_id": "d1", "body": "one"}',
            'small/corpus.jsonl:1: there is no "text"; the record has _id, body',
        ),
        ("corpus.jsonl", b'{"_id": "", "text": "one"}', 'small/corpus.jsonl:1: the "_id" is empty'),
        ("corpus.jsonl", b'{"_id": "d1", "text": "caf\xe9"}', "corpus.jsonl:1: not UTF-8 (byte 0xe9 at position 27)"),
        (
            "corpus.jsonl",
            b'{"_id": "d1", "text": "\\ud83d"}',
            'corpus.jsonl:1: the "text" contains half of a character (\\ud83d)',
        ),
        ("corpus.jsonl", b"", "small/corpus.jsonl has no documents"),
        ("corpus.jsonl", b'{"_id": "d7", "text": ""}', "small/corpus.jsonl has no documents"),
        ("corpus.jsonl", 2 * b'{"_id": "d1", "text": "a"}\n\n', 'corpus.jsonl:3: the id "d1" is already used in /'),
        ("queries.jsonl", b"", "small/queries.jsonl has no queries"),
        ("queries.jsonl", 2 * b'{"_id": "q1", "text": "a"}\n', 'queries.jsonl:2: the id "q1" is already used in /'),
        ("queries.jsonl", b'{"_id": "q7", "text": "a"}', 'test.tsv:2: the query "q2" is not among the queries (2 judg'),
        ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq1\td1\n", "qrels/test.tsv:2: expected 3 columns, got 2"),
        ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\n", "small/qrels/test.tsv has no judgements"),
        ("qrels/test.tsv", b"q2\td9\t1\n", 'qrels/test.tsv:1: the document "d9" is not in the corpus; correct'),
    ],
)
def test_bad_input_is_named(beir_folder, store, file, content, message):
    folder = beir_folder(DOCUMENTS, QUERIES, train=["q1\td1\t1"], test=["q2\td3\t1"])
    (folder / file).write_bytes(content)
    with pytest.raises(UserError) as error:
        load(folder, store)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(store.dir.glob("collection/*/"))  # nothing half done stays


def test_missing_files_are_named(beir_folder, store, tmp_path):
    with pytest.raises(ConfigError, match=r"data.path=DIR"):
        Beir().load(store)
    with pytest.raises(UserError, match=r"nowhere: there is no such file or folder \(data\.path\)$"):
        load(tmp_path / "nowhere", store)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file is not a folder; data.path must name one"):
        load(tmp_path / "file", store)
    folder = beir_folder(DOCUMENTS, QUERIES)
    with pytest.raises(UserError, match=r"small/qrels has no \.tsv file; a BEIR folder holds corpus\.jsonl"):
        load(folder, store)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(UserError, match=r"small/queries\.jsonl is missing; a BEIR folder holds"):
        load(folder, store)


def test_a_home_folder_is_understood(beir_folder, store, monkeypatch):
    folder = beir_folder(DOCUMENTS, QUERIES, test=["q2\td3\t1"])
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load("~/small", store).name == "small"


def test_a_large_table_is_many_blocks(beir_folder, store):
    documents = {f"d{n}": f"text {n}" for n in range(10_000)}
    collection = load(beir_folder(documents, QUERIES, test=["q1\td9999\t1", "q2\td0\t1"]), store)
    assert collection.document_ids == list(documents)
    assert collection.corpus.data.table["_id"].num_chunks == 3  # of 4,096 rows
    assert list(collection.document_texts([9999, 0])) == ["text 9999", "text 0"]


def test_hidden_files_are_no_splits(beir_folder, store):
    folder = beir_folder(DOCUMENTS, QUERIES, train=["q1\td1\t1"], test=["q2\td3\t1"])
    (folder / "qrels" / "._test.tsv").write_bytes(b"\x00\x05\x16\x07Mac OS X\xff")
    assert list(load(folder, store).qrels) == ["train", "test"]


def test_an_id_is_the_same_in_every_file_whatever_blanks_are_around_it(beir_folder, store):
    folder = beir_folder({"d1 ": "one", " d\u00a02": "two"}, {"q1 ": "first"}, test=["q1\td1 \t1", "q1 \td\u00a02\t1"])
    collection = load(folder, store)
    assert collection.document_ids == ["d1", "d\u00a02"]
    assert collection.qrels == {"test": {"q1": {"d1": 1, "d\u00a02": 1}}}


def test_ids_that_differ_by_blanks_alone_are_one_id_twice(beir_folder, store):
    folder = beir_folder({"d1": "one", "d1 ": "two"}, QUERIES, test=["q1\td1\t1"])
    with pytest.raises(UserError, match=r'corpus\.jsonl:2: the id "d1" is already used in .*corpus\.jsonl:1'):
        load(folder, store)


def test_texts_may_call_their_id_id(beir_folder, store):
    folder = beir_folder({}, {}, test=["q1\td1\t1"])
    (folder / "corpus.jsonl").write_text('{"id": "d1", "text": "one"}\n')
    (folder / "queries.jsonl").write_text('{"id": "q1", "text": "first"}\n')
    assert load(folder, store).qrels == {"test": {"q1": {"d1": 1}}}


def lines(count, first=0):
    return [f"q{number}\td{number}\t1" for number in range(first, first + count)]


@pytest.fixture
def thirty(beir_folder):
    """Return a function that writes a folder of thirty documents and queries with these judgements."""
    documents = {f"d{number}": f"document {number}" for number in range(30)}
    queries = {f"q{number}": f"question {number}" for number in range(30)}
    return lambda **qrels: beir_folder(documents, queries, **qrels)


def test_a_split_that_has_every_training_query_is_refused_with_the_splits_to_name(thirty, store):
    folder = thirty(train=lines(20), validation=lines(5, 20), test=lines(5, 25), everything=lines(30))
    with pytest.raises(UserError) as refusal:
        load(folder, store)
    assert str(refusal.value) == (
        "all 20 training queries are also in split everything; name the splits you mean: "
        "data.splits=[train,validation,test]"
    )
    assert len(load(folder, store, splits=["train", "validation", "test"]).qrels["train"]) == 20


@pytest.mark.parametrize(("shared", "level"), [(15, "WARNING"), (1, "INFO")])
def test_training_queries_of_another_split_are_told_warned_of_where_they_are_many(thirty, store, caplog, shared, level):
    caplog.set_level("INFO")
    folder = thirty(train=lines(20), dev=lines(5, 20), test=lines(5, 25), sample=lines(shared))
    assert len(load(folder, store).qrels["train"]) == 20 - shared
    [record] = [record for record in caplog.records if "training queries" in record.getMessage()]
    assert record.levelname == level
    if level == "WARNING":
        assert record.getMessage() == (
            "15 of 20 training queries are also in split sample (qrels/sample.tsv) and are not trained on; if it is "
            "not for evaluation, name the splits you mean: data.splits=[train,dev,test]"
        )


def test_what_loading_merges_and_leaves_out_is_told_by_reason(beir_folder, store, caplog):
    caplog.set_level("INFO")
    queries = {"q1": "one", "q2": "One ", "q3": "", "q4": "four"}
    judged = ["q1\td1\t1", "q1\td1\t2", "q2\td2\t-1", "q2\td1\t1", "q3\td1\t1", "q4\td2\t1"]
    load(beir_folder({"d1": "a", "d2": "b", "d3": " "}, queries, test=judged), store)
    told = [record.getMessage() for record in caplog.records]
    assert told[-5:] == [
        "documents without text left out: 1",
        "queries without text left out: 1",
        "judgements made twice, which count once with the higher grade: 1",
        "grades below zero, which count as 0: 1",
        "queries merged into one of the same text: 1",
    ]


def test_queries_may_say_where_they_came_from(beir_folder, store):
    folder = beir_folder(DOCUMENTS, {}, test=["q1\td1\t1", "q2\td2\t1"])
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "a", "source": "faq"}\n{"_id": "q2", "text": "b"}\n')
    assert load(folder, store).query_sources == ["faq", ""]
