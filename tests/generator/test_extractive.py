"""Parts of documents as queries, and the data set that queries become."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset

from embfit.data.beir import Beir
from embfit.generator import DocumentChoice, ExtractiveGenerator
from embfit.generator.dataset import evaluation_splits, write_dataset
from embfit.generator.extractive import masked_documents, without
from embfit.generator.plan import SourceDocument
from embfit.generator.protocol import GeneratedQuery, source_documents
from embfit.records import Collection
from embfit.store import Store

BODY = """# Installing

The installer asks for a folder. It copies files there and writes a log.

## When it fails

Read the log beside the installer, which names the file that could not be written, and start it again with more room
on the disk. Permissions of the folder are the second cause. An antivirus program that holds a file is the third cause.
"""
OTHER = "A printer is set up with its driver. The driver asks for a port."


@pytest.fixture
def collection() -> Collection:
    corpus = {"_id": ["d0", "d1"], "title": ["Installation guide", ""], "text": [BODY, OTHER]}
    queries = {"_id": ["q0", "q1"], "text": ["how to install", "printer port"]}
    qrels = {"train": {"q0": {"d0": 1}}, "test": {"q1": {"d1": 1}}}
    return Collection("manual", Dataset.from_dict(corpus), Dataset.from_dict(queries), qrels)


def made(collection: Collection, **changed: object) -> list[GeneratedQuery]:
    documents = source_documents(collection, [0, 1], DocumentChoice())
    return list(ExtractiveGenerator(**changed).generate(collection, documents, Path()).queries)


def test_parts_of_a_document_in_turn(collection: Collection) -> None:
    found = made(collection, queries=8, masked=1.0)
    first = [(query.style, query.text) for query in found if query.document.id == "d0"]
    assert first[:3] == [
        ("title", "Installation guide"),
        ("heading", "Installing"),
        ("sentence", "The installer asks for a folder."),
    ]
    assert dict(first)["keywords"].split() != []
    assert ("heading", "When it fails") in first
    assert [style for style, _ in first].count("span") == 3
    assert len(first) == 8
    assert {query.style for query in found if query.document.id == "d1"} == {"sentence", "keywords"}
    assert found == made(collection, queries=8, masked=1.0)
    assert len({query.id for query in found}) == len(found)


def test_masked_documents_lack_the_querys_words(collection: Collection) -> None:
    found = made(collection, queries=8, masked=1.0)
    masked = masked_documents(found)
    for query in found:
        if query.style == "keywords":
            assert query.id not in masked
        else:
            name, text = masked[query.id]
            assert name == f"{query.document.id}#without-{query.id}"
            assert query.text not in " ".join(text.split())
    assert masked_documents(made(collection, queries=8, masked=0.0)) == {}
    [title] = [query for query in found if query.style == "title"]
    assert without(title.document, title.text) == BODY.strip()


def test_only_whole_words_are_taken_out_of_a_document() -> None:
    document = SourceDocument(0, "d", "", "", "Articles on art, and the art  of\nwar; 心脏病学与心脏。", "")
    assert without(document, "art") == "Articles on , and the of\nwar; 心脏病学与心脏。"
    assert without(document, "art of war") == "Articles on art, and the ; 心脏病学与心脏。"
    assert without(document, "心脏") == "Articles on art, and the art of\nwar; 病学与 。"


def test_a_data_set_is_read_back(collection: Collection, tmp_path: Path) -> None:
    queries = made(collection, queries=3, masked=1.0, parts=("title", "sentence"))
    splits, left = evaluation_splits(collection, frozenset(), labels=False)
    assert (list(splits), left) == (["test"], 0)
    write_dataset(tmp_path / "dataset", collection, queries, splits)
    back = Beir(path=str(tmp_path / "dataset"), dev_share=0).load(Store(tmp_path / "store"))
    assert back.corpus_digest == collection.corpus_digest
    assert back.qrels == {"train": {query.id: {query.document.id: 1} for query in queries}, "test": {"q1": {"d1": 1}}}
    labelled, _ = evaluation_splits(collection, frozenset(), labels=True)
    write_dataset(tmp_path / "dataset", collection, queries, labelled, masked_documents(queries))
    both = Beir(path=str(tmp_path / "dataset"), dev_share=0).load(Store(tmp_path / "store"))
    assert len(both.corpus) == 2 + len(queries)
    assert both.qrels["train"].keys() == {"q0", *(query.id for query in queries)}


def test_queries_that_a_model_was_shown_leave_evaluation(collection: Collection) -> None:
    splits, left = evaluation_splits(collection, {"q1", "q0"}, labels=True)
    assert splits == {"train": {"q0": {"d0": 1}}}
    assert left == 1
