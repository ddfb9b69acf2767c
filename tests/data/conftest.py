"""Folders of small collections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def beir_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a BEIR folder: texts by id, and lines of judgements by split."""

    def write(documents: Mapping[str, str], queries: Mapping[str, str], **qrels: Iterable[str]) -> Path:
        folder = tmp_path / "small"
        write_jsonl(folder / "corpus.jsonl", [{"_id": name, "text": text} for name, text in documents.items()])
        write_jsonl(folder / "queries.jsonl", [{"_id": name, "text": text} for name, text in queries.items()])
        for split, lines in qrels.items():
            file = folder / "qrels" / f"{split}.tsv"
            file.parent.mkdir(exist_ok=True)
            file.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{line}\n" for line in lines))
        return folder

    return write


@pytest.fixture
def chain(beir_folder: Callable[..., Path]) -> Path:
    """Forty documents; training query n asks for documents n and n + 1 if n is even, so that they hang together."""
    documents = {f"d{n}": f"document number {n}" for n in range(40)}
    queries = {f"q{n}": f"question {n}" for n in range(40)}
    train = [f"q{n}\td{n - n % 2}\t1" for n in range(40)]
    return beir_folder(documents, queries, train=train)
