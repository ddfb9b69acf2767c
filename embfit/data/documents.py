"""Collections of documents alone: a folder of text files, or a table of texts, cut into pieces."""

from __future__ import annotations

import codecs
import json
import logging
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field

from embfit.data.distinct_texts import CorpusTexts
from embfit.data.document_files import ChangedFileError, DocumentFile, find_documents
from embfit.data.document_tables import Cutting, ParsedDocument, write_documents
from embfit.data.files import Records, content_digest, parted_place, table_of, text_of
from embfit.data.formats.block import Block
from embfit.data.formats.plain_text import read_plain_text
from embfit.data.formats.readers import UnreadableError, read_blocks, whole_characters
from embfit.data.identifiers import identifier
from embfit.data.remote import local_path
from embfit.data.skipped_files import LeftOutFiles
from embfit.data.tables import TABLES_VERSION, Tables, open_collection
from embfit.errors import ConfigError, UserError
from embfit.progress import track
from embfit.records import Collection
from embfit.store import Store, digest
from embfit.type_hints import Location

log = logging.getLogger(__name__)

READING_VERSION = 1  # of what readers, cutting and merging make of the same files
TOLD = "told.json"  # what reading logs, beside the tables: logged again whenever these are found in the store
ATTEMPTS = 3

Similarity = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Documents:
    """Files of Markdown, reStructuredText, HTML, plain text, PDF and DOCX, or the rows of a table, without queries.

    Args:
        path: a folder, which is read with all folders in it; a file; or a table (.jsonl, .csv, .tsv or .parquet).
        include: globs of the files to read (`["guide/**/*.md"]`), those without a known suffix as plain text. None:
            all files with a known suffix. Hidden files and folders are never read.
        exclude: globs of files and folders to pass over (`[build, "*.de.md"]`).
        piece_tokens: the most tokens of a piece with its title, by an estimate that is the same for all models. None
            leaves documents whole.
        boilerplate: a paragraph that stands in at least this share of the files of one format (and in five of them) is
            left out of all; None keeps it.
        near_copies: pieces that share this much of their four-word sequences (Jaccard similarity) are one, the first;
            None merges equal ones alone.
        encoding: how files are encoded that are not UTF-8 and declare nothing else; None leaves them out.
        max_megabytes: larger files are left out. A table may have any size.
        text: the column of a table's texts.
        title: the column of their titles; a table may lack it.
        document_id: the column of their ids; without it they are numbered.

    Raises:
        ConfigError: there is no such encoding.
    """

    path: Annotated[str | None, Location(required=True)] = None
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    piece_tokens: Annotated[int, Field(ge=32)] | None = 256
    boilerplate: Similarity | None = 0.5
    near_copies: Similarity | None = 0.9
    encoding: str | None = None
    max_megabytes: Annotated[float, Field(gt=0)] = 50
    text: str = "text"
    title: str = "title"
    document_id: str = "_id"

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.encoding or "utf-8")
        except LookupError:
            raise ConfigError(
                f"data.encoding: there is no encoding {self.encoding!r}; name another one, such as latin1 or cp1252"
            ) from None

    def load(self, store: Store) -> Collection:
        """Return the documents as a collection without queries and judgements.

        Raises:
            UserError: there is no such path, or nothing at it that can be read.
            ConfigError: no path is named.
        """
        collection = self.open(self.read(store))
        log.info("%s: %s documents, no queries", collection.name, f"{len(collection.corpus):,}")
        return collection

    def open(self, tables: Tables) -> Collection:
        """Return the collection of tables that were read."""
        return open_collection(tables.name, tables.folder, tables.folder)

    def read(self, store: Store) -> Tables:
        """Return the documents' tables; parsed once, then found in the store until a file or a setting changes.

        What was read, merged and left out is told each time.

        Raises:
            UserError: there is no such path, or nothing at it that can be read.
            ConfigError: no path is named.
        """
        if not self.path:
            raise ConfigError("data=documents needs a folder or a file: data.path=DIR")
        path = local_path(self.path, "data.path", store)
        table = table_of(path) if path.is_file() else None
        for attempt in range(ATTEMPTS):
            try:
                entry = self._read_files(path, store) if table is None else self._read_table(path, table, store)
                break
            except ChangedFileError as error:
                if attempt == ATTEMPTS - 1:
                    raise UserError(f"{path}/{error} changes while it is read; read a copy of the folder") from error
        for is_warning, line in json.loads((entry / TOLD).read_text(encoding="utf-8")):
            log.log(logging.WARNING if is_warning else logging.INFO, "%s: %s", path.name, line)
        return Tables(path.resolve().stem if path.is_file() else path.resolve().name, entry)

    def _read_files(self, path: Path, store: Store) -> Path:
        left_out = LeftOutFiles(self.max_megabytes)
        files = find_documents(path, self.include, self.exclude, self.max_megabytes, left_out)
        if not files:
            raise UserError(_nothing(path, left_out, self.include))

        def build(entry: Path) -> None:
            parsed = self._parse(files, left_out)
            counts = write_documents(entry, track(parsed, "reading documents", len(files), "files"), self._cutting)
            self._finish(entry, path, counts, left_out)

        # what is left out without being read is told too, so it is part of the key
        key = {"files": [[file.name, file.digest] for file in files], "left_out": left_out.counts}
        return store.entry("collection", self._key("documents", {"found": digest(key)}), build, version=TABLES_VERSION)

    def _read_table(self, path: Path, records: Records, store: Store) -> Path:
        def build(entry: Path) -> None:
            counts = write_documents(entry, self._rows(records, path.name), self._cutting)
            self._finish(entry, path, counts, LeftOutFiles(self.max_megabytes))

        columns = [self.text, self.title, self.document_id]
        key = {"table": path.name, "digest": content_digest(path), "columns": columns}
        return store.entry("collection", self._key("documents table", key), build, version=TABLES_VERSION)

    def _key(self, reader: str, found: Mapping[str, Any]) -> dict[str, Any]:
        settings = [self.piece_tokens, self.boilerplate, self.near_copies, self.encoding]
        return {"reader": reader, **found, "settings": settings, "reading": READING_VERSION}

    @property
    def _cutting(self) -> Cutting:
        return Cutting(self.piece_tokens, self.boilerplate, self.near_copies)

    def _parse(self, files: Sequence[DocumentFile], left_out: LeftOutFiles) -> Iterator[ParsedDocument]:
        for file in files:
            try:
                blocks = read_blocks(file.read(), file.format, self.encoding)
                if not any(map(str.isalpha, "".join(block.text for block in blocks))):
                    raise UnreadableError("no_text")
            except UnreadableError as error:
                left_out.add(error.reason, file.name, error.detail)
                blocks = []
            name = _printable(file.name)
            if blocks:
                yield ParsedDocument(name, name, file.format.name, blocks)

    def _rows(self, records: Records, name: str) -> Iterator[ParsedDocument]:
        for number, (place, record) in enumerate(records, 1):
            given = identifier(text_of(place, record, self.document_id, "")) or str(number)
            title, text = text_of(place, record, self.title, ""), text_of(place, record, self.text)
            _, where = parted_place(place)
            blocks = [Block(whole_characters(block.text), where) for block in read_plain_text(text)]
            if title.strip():
                blocks.insert(0, Block(whole_characters(" ".join(title.split())), where, level=1))
            yield ParsedDocument(whole_characters(given), name, "rows", blocks)

    def _finish(self, entry: Path, path: Path, counts: Mapping[str, Any], left_out: LeftOutFiles) -> None:
        """Write the facts and what is told of them.

        Raises:
            UserError: nothing is left.
        """
        documents = len(open_collection("", entry, entry).corpus)
        facts = {"documents": documents, "queries": 0, **counts, "files_left_out": left_out.counts}
        if not documents:
            raise UserError(_nothing(path, left_out, self.include, list(_lines(facts))))
        (entry / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        told = [*((False, line) for line in _lines(facts)), *left_out.lines()]
        (entry / TOLD).write_text(json.dumps(told), encoding="utf-8")


def corpus_texts(corpus: str | Documents, store: Store, **settings: Any) -> tuple[CorpusTexts, str]:
    """Return a corpus for rows of queries, and what identifies its texts.

    Args:
        corpus: the documents, or their path.
        store: keeps the tables.
        settings: those of `Documents` where only the path is given.

    Raises:
        UserError: there is no such path, or nothing at it that can be read.
    """
    documents = Documents(corpus, **settings) if isinstance(corpus, str) else corpus
    tables = documents.read(store)
    return CorpusTexts(documents.open(tables).corpus, documents.near_copies), tables.folder.name


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each thing that was done to the text."""
    if facts["files_read"]:
        yield "files read: " + ", ".join(f"{count:,} {form}" for form, count in facts["files_read"].items())
    said = {
        "asides_left_out": "paragraphs of navigation, footers and other asides left out: {}",
        "boilerplate_left_out": "paragraphs left out because most files have them (data.boilerplate): {}",
        "headings_without_text_left_out": "headings without text left out: {}",
        "pieces_without_words_left_out": "pieces without a word left out: {}",
        "copies_merged": "copies merged: {}",
        "near_copies_merged": "near copies merged (data.near_copies): {}",
    }
    yield from (line.format(f"{facts[name]:,}") for name, line in said.items() if facts[name])


def _nothing(path: Path, left_out: LeftOutFiles, include: Sequence[str] | None, done: Sequence[str] = ()) -> str:
    """Say why there are no documents; `done` tells what was done to the text of the files that were read."""
    why = " | ".join([*done, *(line for _, line in left_out.lines())])
    if include is not None and set(left_out.counts) <= {"excluded", "hidden"}:
        return f"no file of {path} matches data.include={list(include)}; its globs are relative to data.path"
    if done:
        return f"no text is left of {path}: {why}"
    return f"{path} holds no documents that can be read{f' ({why})' if why else ': it is empty'}"


def _printable(name: str) -> str:
    """Return a file's name as an id: blanks, which part the columns of run files, and bytes of no character escaped."""
    plain = unicodedata.normalize("NFC", name)
    return "".join(
        mark if mark.isprintable() and not mark.isspace() and mark not in "%#" else quote(os.fsencode(mark))
        for mark in plain
    )
