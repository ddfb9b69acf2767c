"""A collection's tables on disk: written in one pass with bounded memory, opened memory-mapped.

A folder holds `corpus.arrow` (with digests of the texts), `queries.arrow` and `qrels.arrow` (Arrow streams),
`facts.json`, and `left_out.json` if some documents have no text. A second folder, with `qrels.arrow` and `facts.json`
alone, says how the judgements of the first were split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa

from embfit.errors import UserError
from embfit.records import Collection, Qrels
from embfit.text_digests import DIGESTS, digest_documents

BLOCK_ROWS = 4096
BLOCK_CHARACTERS = 1 << 26  # a column of one block may not outgrow 2 GB

TABLES_VERSION = 7  # of the collections in the store, whichever source they were read from

CORPUS = ("_id", "title", "text")
DOCUMENTS = (*CORPUS, "source", "position")  # of a corpus that was read from files: which one, and where in it
QUERIES = ("_id", "text")
TAGGED = (*QUERIES, "source", "weight")  # of queries that say where they came from, and how much they count in training
LEFT_OUT = "left_out.json"  # ids of documents without text
_QRELS = pa.schema({"split": pa.string(), "query": pa.string(), "document": pa.string(), "grade": pa.int32()})


class SourceSplit(NamedTuple):
    """A split as its source has it.

    Args:
        name: the name by which `data.splits` chooses it.
        place: where it stands, as messages name it (`qrels/test.tsv`).
    """

    name: str
    place: str


class Tables(NamedTuple):
    """A collection on disk with its source's own splits, before any are held out.

    Args:
        name: the collection's name, as reports show it.
        folder: the folder with its tables.
        splits: the splits that were chosen by name, with what the source calls them; empty for a source that does not
            let them be chosen.
    """

    name: str
    folder: Path
    splits: Mapping[str, SourceSplit] = MappingProxyType({})


class TableWriter:
    """Writes rows of texts to an Arrow file, block by block; a table of documents also gets digests of its texts.

    Args:
        path: the file to write.
        columns: the names of the table's columns.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.rows = 0
        self.columns = columns
        self._schema = pa.schema([(name, pa.string()) for name in columns])
        if columns[: len(CORPUS)] == CORPUS:
            self._schema = pa.unify_schemas([self._schema, DIGESTS])
        self._writer = pa.ipc.new_stream(str(path), self._schema)
        self._block: list[Sequence[str]] = []
        self._places: list[str] = []
        self._characters = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
        finally:
            self._writer.close()

    def add(self, row: Sequence[str], place: str) -> None:
        """Add a row.

        Raises:
            UserError: a text of this block cannot be written; the message names its place.
        """
        self._block.append(row)
        self._places.append(place)
        self.rows += 1
        self._characters += sum(map(len, row))
        if len(self._block) == BLOCK_ROWS or self._characters > BLOCK_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if not self._block:
            return
        try:
            texts = list(zip(*self._block, strict=True))
            columns = [pa.array(values, pa.string()) for values in texts]
            if self.columns[: len(CORPUS)] == CORPUS:
                columns += digest_documents(*texts[1 : len(CORPUS)]).columns
        except UnicodeEncodeError as error:
            raise UserError(self._half_character()) from error
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._block, self._places, self._characters = [], [], 0

    def _half_character(self) -> str:
        for place, row in zip(self._places, self._block, strict=True):
            for name, text in zip(self.columns, row, strict=True):
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    half = ascii(text[error.start]).strip("'")
                    return f'{place}: the "{name}" contains half of a character ({half}); remove it from the text'
        raise AssertionError("the block can be written")


def write_judgements(folder: Path, qrels: Mapping[str, Qrels], facts: Mapping[str, Any]) -> None:
    """Write the judgements and facts of a collection; splits without judgements are not written."""
    with pa.ipc.new_stream(str(folder / "qrels.arrow"), _QRELS) as writer:
        for split, judged in qrels.items():
            rows = [
                (split, query, name, grade) for query, documents in judged.items() for name, grade in documents.items()
            ]
            columns = zip(*rows, strict=True) if rows else ([], [], [], [])
            writer.write_table(pa.table([*map(list, columns)], schema=_QRELS))
    (folder / "facts.json").write_text(json.dumps(facts))


def open_collection(name: str, texts: Path, judgements: Path) -> Collection:
    """Open a collection.

    Args:
        name: the collection's name, as reports show it.
        texts: the folder with the tables of documents and queries.
        judgements: the folder with the judgements and facts; it may be the same folder.
    """
    from datasets import Dataset  # takes a second to import

    with pa.memory_map(str(judgements / "qrels.arrow")) as file:
        columns = pa.ipc.open_stream(file).read_all().to_pydict()
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    for split, query, document, grade in zip(*columns.values(), strict=True):
        qrels.setdefault(split, {}).setdefault(query, {})[document] = grade
    left_out = texts / LEFT_OUT
    return Collection(
        name=name,
        corpus=Dataset.from_file(str(texts / "corpus.arrow")),
        queries=Dataset.from_file(str(texts / "queries.arrow")),
        qrels=qrels,
        facts=json.loads((judgements / "facts.json").read_text()),
        left_out=frozenset(json.loads(left_out.read_text()) if left_out.is_file() else ()),
    )
