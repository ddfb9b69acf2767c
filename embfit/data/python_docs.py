"""A collection made from the documentation strings of Python code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from embfit.data.docstring_pairs import docstring_pairs
from embfit.data.docstrings import Docstring, read_docstrings
from embfit.data.files import content_digest
from embfit.data.python_files import PythonFile, folder_files, package_files, stdlib_files
from embfit.data.source import CollectionSource, SeenShare, Share
from embfit.data.tables import CORPUS, QUERIES, TABLES_VERSION, Tables, TableWriter, write_judgements
from embfit.errors import ConfigError, UserError
from embfit.store import Store
from embfit.type_hints import Location

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PythonDocs(CollectionSource):
    """Makes a query of each summary sentence and a document of the documentation after it; splits go by module.

    Files are parsed, never imported.

    Args:
        packages: installed packages (`numpy`, `sklearn.metrics`); `stdlib` is Python's standard library.
        path: a folder of Python files to read in place of the packages, such as one's own code.
        dev_seen_share: as of every source; 0 here, since splits go by module.
        test_share: share of the queries to hold out as `test`. A fifth of the standard library's is enough for a
            comparison to be significant.
        max_train: training queries at most; 600 let a first run take minutes on two cores. None uses all (1,644 in the
            standard library).
    """

    packages: Sequence[str] = ("stdlib",)
    path: Annotated[str | None, Location()] = None
    dev_seen_share: SeenShare = field(default=0.0, kw_only=True)
    test_share: Share = field(default=0.2, kw_only=True)
    max_train: Annotated[int, Field(ge=1)] | None = field(default=600, kw_only=True)

    def read(self, store: Store) -> Tables:
        """Return all pairs as training data; files are parsed once, and read from the store until one changes."""
        files = list(self._files())
        if not files:
            raise UserError(f"there are no Python files in {self._place}; name others with data.path or data.packages")
        key = {
            "reader": "python-docs",
            "python": [*sys.version_info[:2]],  # whose grammar reads the files
            "files": [[file.module, content_digest(file.path)] for file in files],
        }
        entry = store.entry("collection", key, lambda folder: self._write(folder, files), version=TABLES_VERSION)
        return Tables("python-docs" if self.path is None else Path(self.path).resolve().name, entry)

    def unit(self, document: str) -> str:
        """Return the document's module, so that no two splits share a module."""
        return document.partition(":")[0]

    @property
    def _place(self) -> str:
        return ", ".join(self.packages) if self.path is None else self.path

    def _files(self) -> Iterator[PythonFile]:
        if self.path is not None:
            folder = Path(self.path).expanduser()
            if not folder.is_dir():
                raise UserError(f"{folder} is not a folder; set data.path to a folder of Python files")
            yield from folder_files(folder)
            return
        if not self.packages:
            raise ConfigError("data=python-docs needs data.packages=[NAME, ...] or data.path=DIR")
        for name in self.packages:
            yield from stdlib_files() if name == "stdlib" else package_files(name)

    def _write(self, folder: Path, files: Sequence[PythonFile]) -> None:
        docstrings: list[Docstring] = []
        unread = 0
        for file in files:
            try:
                docstrings.extend(read_docstrings(file.path.read_bytes(), file.module))
            except (SyntaxError, ValueError) as error:
                unread += 1
                log.info("skipping %s, which cannot be parsed: %s", file.path, error)
        pairs = docstring_pairs(docstrings)
        if not pairs.queries:
            raise UserError(
                f"none of the {len(docstrings)} documentation strings in {self._place} gives a pair: a pair needs a "
                "summary sentence and an explanation after it; name other code with data.path or data.packages"
            )
        with (
            TableWriter(folder / "corpus.arrow", CORPUS) as corpus,
            TableWriter(folder / "queries.arrow", QUERIES) as queries,
        ):
            for document in pairs.documents:
                corpus.add(document, document[0])
            for query in pairs.queries:
                queries.add(query, query[0])
        write_judgements(
            folder, {"train": pairs.relevant}, {"files": len(files), "files_unread": unread, **pairs.facts}
        )
