import logging

import pytest

from embfit.data import Beir, tables
from embfit.data.judged_texts import document_contents, query_texts
from embfit.errors import ConfigError, UserError
from embfit.evaluator.judging import judgements
from embfit.miner.examples import training_examples
from embfit.records import Collection
from embfit.text_digests import digest_text
from tests.conftest import make_collection


def documents_of(judged):
    return {document for documents in judged.values() for document in documents}


def test_missing_splits_are_cut_by_document(chain, store):
    collection = Beir(str(chain), dev_share=0.2, dev_seen_share=0, test_share=0.3).load(store)
    assert list(collection.qrels) == ["train", "dev", "test"]
    assert [len(collection.qrels[split]) for split in collection.qrels] == [20, 8, 12]
    documents = [documents_of(judged) for judged in collection.qrels.values()]
    assert sum(map(len, documents)) == len(set.union(*documents)) == 20  # none of them is on two sides
    assert collection.facts["held_out"] == "test, dev"
    assert collection.facts["test_queries_seen_in_train"] == 0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_dev_asks_for_documents_that_training_sees(chain, store, share):
    collection = Beir(str(chain), dev_share=0.2, dev_seen_share=share, test_share=0.3).load(store)
    without = Beir(str(chain), dev_share=0.2, dev_seen_share=0, test_share=0.3).load(store)
    assert collection.qrels["test"] == without.qrels["test"]
    trained = documents_of(collection.qrels["train"])
    dev = collection.qrels["dev"]
    seen = [query for query, grades in dev.items() if grades.keys() <= trained]
    assert (len(dev), len(seen)) == (8, round(8 * share))
    assert not any(dev[query].keys() & trained for query in dev.keys() - set(seen))
    assert collection.facts["dev_queries_seen_in_train"] == len(seen)


def test_dev_is_unseen_where_each_document_has_one_query(beir_folder, store):
    documents = {f"d{n}": f"text {n}" for n in range(40)}
    queries = {f"q{n}": f"question {n}" for n in range(40)}
    folder = beir_folder(documents, queries, train=[f"q{n}\td{n}\t1" for n in range(40)])
    loaded = [Beir(str(folder), dev_share=0.2, dev_seen_share=share).load(store) for share in (0, 0.5)]
    assert loaded[0].qrels == loaded[1].qrels
    assert len(loaded[0].qrels["dev"]) == 8


def test_copies_of_a_document_are_on_one_side(beir_folder, store):
    documents = {f"d{n}": f"text {n % 20}" for n in range(40)}  # each text twice
    queries = {f"q{n}": f"question {n}" for n in range(40)}
    folder = beir_folder(documents, queries, train=[f"q{n}\td{n}\t1" for n in range(40)])
    qrels = Beir(str(folder), dev_seen_share=0, test_share=0.3).load(store).qrels
    for judged in qrels.values():
        numbers = {int(name[1:]) for name in judged}
        assert {number % 20 for number in numbers if number < 20} == {number % 20 for number in numbers if number >= 20}


def test_queries_that_differ_in_case_alone_are_one(beir_folder, store):
    documents = {f"d{n}": f"text {n}" for n in range(40)}
    queries = {f"q{n}": ("Question" if n < 20 else "question") + f" {n % 20}" for n in range(40)}
    folder = beir_folder(documents, queries, train=[f"q{n}\td{n}\t1" for n in range(40)])
    collection = Beir(str(folder), test_share=0.3).load(store)
    assert len(collection.qrels["test"]) == 6
    for judged in collection.qrels.values():
        for query, documents in judged.items():
            number = int(query[1:])
            assert documents == {f"d{number}": 1, f"d{number + 20}": 1}
    assert collection.facts["queries_merged"] == 20


def test_dev_is_held_out_where_the_published_one_is_the_test_split(beir_folder, store, caplog):
    documents = {f"d{n}": f"text {n}" for n in range(20)}
    queries = {f"q{n}": f"question {n}" for n in range(20)} | {"t": "Another?", "u": "another"}
    train = [f"q{n}\td{n}\t1" for n in range(20)]
    folder = beir_folder(documents, queries, train=train, dev=["t\td0\t1"], test=["u\td0\t1"])
    with caplog.at_level(logging.INFO, "embfit.data"):
        collection = Beir(str(folder)).load(store)
    assert (collection.facts["held_out"], collection.facts["dev_queries_removed"]) == ("dev", 1)
    assert "t" not in collection.qrels["dev"]
    assert len(collection.qrels["dev"]) == 2
    assert "dev queries removed because another evaluation split has them too: 1" in caplog.messages


def test_given_negatives_bind_nothing_and_stay_with_their_query(beir_folder, store):
    documents = {f"d{n}": f"text {n}" for n in range(20)}
    queries = {f"q{n}": f"question {n}" for n in range(20)}
    lines = [f"q{n}\td{n}\t1" for n in range(20)] + [f"q{n}\td0\t0" for n in range(1, 20)]
    collection = Beir(str(beir_folder(documents, queries, train=lines)), dev_share=0.2, test_share=0.2).load(store)
    assert [len(judged) for judged in collection.qrels.values()] == [12, 4, 4]
    assert collection.qrels["test"] == {q: {f"d{q[1:]}": 1, "d0": 0} for q in collection.qrels["test"] if q != "q0"} | (
        {"q0": {"d0": 1}} if "q0" in collection.qrels["test"] else {}
    )


def test_a_query_with_nothing_to_find_is_never_held_out(beir_folder, store):
    documents = {f"d{n}": f"text {n}" for n in range(20)}
    queries = {f"q{n}": f"question {n}" for n in range(20)}
    lines = [f"q{n}\td{n}\t{int(n < 10)}" for n in range(20)]
    collection = Beir(str(beir_folder(documents, queries, train=lines)), dev_share=0.3, test_share=0.3).load(store)
    assert {f"q{n}" for n in range(10, 20)} <= set(collection.qrels["train"])
    assert len(collection.qrels["test"]) == len(collection.qrels["dev"]) == 3  # of the ten that can be


def test_leaks_are_removed_before_dev_is_cut(beir_folder, store, caplog):
    documents = {f"d{n}": f"text {n}" for n in range(40)}
    queries = {f"q{n}": f"question {n}" for n in range(40)} | {"t": "QUESTION 5", "u": "unseen"}
    train = [f"q{n}\td{n}\t1" for n in range(40)]
    folder = beir_folder(documents, queries, train=train, test=["t\td5\t1", "u\td6\t1"])
    with caplog.at_level(logging.INFO, "embfit.data"):
        collection = Beir(str(folder), dev_share=0.5).load(store)
    assert not any("q5" in collection.qrels[split] for split in ("train", "dev"))
    facts = collection.facts
    assert (facts["leaked_queries_removed"], facts["leaked_pairs_removed"]) == (1, 1)
    assert facts["test_queries_seen_in_train"] == ("q6" in collection.qrels["train"])
    assert (facts["train_queries"], facts["dev_queries"]) == (19, 20)
    assert caplog.messages[:2] == [
        "small: 40 documents; queries (pairs) train 19 (19), dev 20 (20), test 2 (2)",
        "training queries removed because they are evaluation queries too: 1",
    ]


def test_given_splits_are_not_touched(beir_folder, store):
    documents = {f"d{n}": f"text {n}" for n in range(4)}
    queries = {f"q{n}": f"question {n}" for n in range(4)}
    lines = {split: [f"q{n}\td{n}\t1"] for n, split in enumerate(("train", "dev", "test", "production"))}
    collection = Beir(str(beir_folder(documents, queries, **lines))).load(store)
    assert collection.qrels == {
        split: {f"q{n}": {f"d{n}": 1}} for n, split in enumerate(("train", "dev", "test", "production"))
    }
    assert list(collection.qrels) == ["train", "dev", "test", "production"]


def test_equal_texts_are_told_without_reading_them_again(beir_folder, store, monkeypatch):
    documents = {"d1": "red", "d2": "green", "d3": "red"}
    folder = beir_folder(documents, {"d1": "green", "q": "sky"}, train=["d1\td3\t1", "q\td2\t1"])
    collection = Beir(str(folder), dev_share=0.0, test_share=0.0, exclude_self=True).load(store)
    expected = make_collection(documents, {}, {}).corpus_digest

    def read(*_):
        raise AssertionError("a text is read")

    monkeypatch.setattr(Collection, "document_texts", read)
    assert collection.document_copies.tolist() == [0, 1, 0]
    assert collection.corpus_digest == expected
    own = training_examples(collection).own
    assert [rows.tolist() for rows in own.lists()] == [[0, 1], []]  # by its id, and by its text


def test_queries_that_are_documents_do_not_become_their_own_answers_when_they_are_merged(beir_folder, store):
    documents = {"1": "How do I learn Python?", "2": "how do I learn python", "3": "Python courses"}
    lines = ["1\t2\t1", "2\t1\t1", "2\t3\t1"]
    folder = str(beir_folder(documents, {"1": documents["1"], "2": documents["2"]}, test=lines))
    merged = Beir(folder, exclude_self=True).load(store)
    assert merged.qrels["test"] == {"1": {"2": 1, "3": 1}}
    assert Beir(folder).load(store).qrels["test"] == {"1": {"1": 1, "2": 1, "3": 1}}


def test_judged_texts_are_found_in_every_block(beir_folder, store, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK_ROWS", 3)
    documents = {f"d{n}": f"text {n}" for n in range(8)}
    queries = {f"q{n}": f"question {n}" for n in range(8)}
    judged = [0, 4, 5, 7]
    folder = beir_folder(documents, queries, test=[f"q{n}\td{n}\t1" for n in judged])
    collection = Beir(str(folder)).load(store)
    assert query_texts(collection) == {f"q{n}": f"question {n}" for n in judged}
    assert document_contents(collection) == {f"d{n}": digest_text(f"text {n}") for n in judged}


def test_another_seed_holds_out_others(chain, store):
    first, again, other = (set(Beir(str(chain), split_seed=seed).load(store).qrels["test"]) for seed in (0, 0, 1))
    assert first == again != other


def test_training_can_be_limited_after_the_cut(chain, store):
    collection = Beir(str(chain), max_train=5).load(store)
    whole = Beir(str(chain)).load(store)
    assert collection.facts["train_queries"] == 5
    assert set(collection.qrels["train"]) < set(whole.qrels["train"])
    assert collection.qrels["test"] == whole.qrels["test"]


def test_a_share_of_zero_holds_out_nothing(chain, store):
    assert list(Beir(str(chain), dev_share=0.0, test_share=0.0).load(store).qrels) == ["train"]


def test_too_few_queries_are_said(beir_folder, store, caplog):
    queries = {f"q{n}": f"question {n}" for n in range(30)}
    folder = beir_folder({"d": "the only text"}, queries, train=[f"{name}\td\t1" for name in queries])
    collection = Beir(str(folder), dev_seen_share=0).load(store)
    assert list(collection.qrels) == ["train"]
    assert (collection.facts["held_out"], collection.facts["not_held_out"]) == ("", "test, dev")
    with pytest.raises(UserError) as error:
        judgements(collection, "test", "evaluator.split")
    assert str(error.value) == (
        "evaluator.split=test: small has no split 'test'; none of the 30 training queries could be held out for it "
        "(data.test_share); its splits: train"
    )
    assert "only 0 of 30 queries could be held out as dev, fewer than data.dev_share=0.1 asks for" in caplog.text


def test_shares_must_leave_something(chain, store):
    with pytest.raises(ConfigError, match=r"data\.dev_share=0\.5 and data\.test_share=0\.5 leave nothing to train on"):
        Beir(str(chain), dev_share=0.5, test_share=0.5).load(store)
