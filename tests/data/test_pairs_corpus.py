"""`data.corpus`: pairs among all documents of a folder or table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from embfit.data import Documents, Pairs
from embfit.errors import UserError
from embfit.store import Store
from tests.data.conftest import write_jsonl

WHOLE = {"dev_share": 0.0, "test_share": 0.0}
LONG = " ".join(f"word{at}" for at in range(60))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "guide"
    made.mkdir()
    (made / "a.md").write_text(f"# Install\n\nUse apt.\n\n# Long\n\n{LONG}\n")
    (made / "b.txt").write_text("Plain words.\n")
    return made


def test_documents_of_the_pairs_become_those_of_the_corpus(tmp_path: Path, folder: Path, store: Store) -> None:
    rows = [
        {"query": "how?", "positive": "Use apt.", "negatives": ["Plain words."]},  # without its title
        {"query": "long?", "positive": f"{LONG} more", "negatives": []},  # nearly
        {"query": "other?", "positive": "Of the pairs alone.", "negatives": ["Use apt."]},
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    collection = Pairs(str(tmp_path / "pairs.jsonl"), corpus=str(folder), **WHOLE).load(store)
    names = collection.document_ids
    assert [name.partition("#")[0] for name in names] == ["a.md", "a.md", "b.txt", "d1"]
    assert collection.qrels["train"] == {
        "q1": {names[0]: 1, names[2]: 0},
        "q2": {names[1]: 1},
        "q3": {"d1": 1, names[0]: 0},
    }
    assert collection.corpus[3]["source"] == "pairs.jsonl"
    assert collection.corpus[3]["position"] == "line 3"
    facts = {name: count for name, count in collection.facts.items() if "corpus" in name}
    assert facts == {
        "documents_of_corpus": 3,
        "row_documents_in_corpus": 3,
        "row_documents_nearly_in_corpus": 1,
        "row_documents_added_to_corpus": 1,
    }


def test_a_row_of_a_parquet_file_has_its_number_as_position(tmp_path: Path, folder: Path, store: Store) -> None:
    path = tmp_path / "pairs.parquet"
    pyarrow.parquet.write_table(
        pa.table({"query": ["how?", "other?"], "positive": ["Use apt.", "Of the pairs."]}), path
    )
    collection = Pairs(str(path), corpus=str(folder), **WHOLE).load(store)
    assert (collection.corpus[3]["source"], collection.corpus[3]["position"]) == ("pairs.parquet", "row 2")
    again = Pairs(str(path.rename(tmp_path / "others.parquet")), corpus=str(folder), **WHOLE).load(store)
    assert again.corpus[3]["source"] == "others.parquet"


def test_a_changed_corpus_is_read_again(tmp_path: Path, folder: Path, store: Store) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", [{"query": "how?", "positive": "Use apt."}])
    pairs = Pairs(str(tmp_path / "pairs.jsonl"), corpus=str(folder), **WHOLE)
    assert len(pairs.load(store).corpus) == 3
    (folder / "c.md").write_text("More.")
    assert len(pairs.load(store).corpus) == 4


def test_a_corpus_with_settings_of_its_own(tmp_path: Path, folder: Path, store: Store) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", [{"query": "how?", "positive": "New."}])
    corpus = Documents(str(folder), piece_tokens=None, exclude=["*.txt"])
    collection = Pairs(str(tmp_path / "pairs.jsonl"), corpus=corpus, **WHOLE).load(store)
    assert collection.document_ids == ["a.md", "d1"]


def test_ids_of_pairs_and_corpus_name_one_text(tmp_path: Path, store: Store) -> None:
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "x", "text": "one"}, {"_id": "y", "text": "two"}])
    write_jsonl(tmp_path / "pairs.jsonl", [{"query": "q", "positive": "one", "id": "x"}])
    columns = {"document_id": "id", "corpus": str(tmp_path / "corpus.jsonl"), **WHOLE}
    assert Pairs(str(tmp_path / "pairs.jsonl"), **columns).load(store).qrels["train"] == {"q1": {"x": 1}}
    write_jsonl(tmp_path / "pairs.jsonl", [{"query": "q", "positive": "three", "id": "x"}])
    with pytest.raises(UserError, match=r'pairs\.jsonl:1: the id "x" stands for another text'):
        Pairs(str(tmp_path / "pairs.jsonl"), **columns).load(store)
