"""Collections in the BEIR layout: a folder of `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from embfit.compose.command_line import typed
from embfit.data.files import JsonLines, content_digest
from embfit.data.qrels import QrelsFile
from embfit.data.remote import local_path
from embfit.data.source import CollectionSource, choose_splits
from embfit.data.tables import TABLES_VERSION, SourceSplit, Tables
from embfit.data.write_collection import write_collection
from embfit.errors import ConfigError, UserError
from embfit.store import Store
from embfit.type_hints import Location

LAYOUT = "a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv"


@dataclass(frozen=True)
class Beir(CollectionSource):
    """A folder in the BEIR layout (Thakur et al. 2021).

    Args:
        path: the folder.
        splits: the names of the qrels files to read (`[train, test]`); None reads all.
        skip_unknown: whether judgements that name an unknown document or query are left out and counted; false makes
            the first of them an error.
    """

    path: Annotated[str | None, Location(required=True)] = None
    splits: list[str] | None = None
    skip_unknown: bool = False

    def read(self, store: Store) -> Tables:
        """Return the folder's tables; files are parsed once, and read from the store until one of them changes."""
        if self.path is None:
            raise ConfigError("data=beir needs a folder in the BEIR layout: data.path=DIR")
        folder = local_path(self.path, "data.path", store)
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; data.path must name one ({LAYOUT})")
        corpus, queries = folder / "corpus.jsonl", folder / "queries.jsonl"
        if not corpus.is_file():
            raise UserError(f"{corpus} is missing; {LAYOUT}")
        if not queries.is_file():
            alone = typed("data.path", str(corpus))
            raise UserError(
                f"{queries} is missing; {LAYOUT}. The documents alone can be searched: task=search data=documents "
                f"{alone}"
            )
        files = sorted((folder / "qrels").glob("*.tsv"))
        found = {file.stem: file for file in files if not file.name.startswith(".")}  # macOS writes ._test.tsv
        if not found:
            raise UserError(f"{folder}/qrels has no .tsv file; {LAYOUT}")
        qrels = choose_splits(found, self.splits, f"{folder}/qrels")

        def build(entry: Path) -> None:
            judgements = {split: QrelsFile(file) for split, file in qrels.items()}
            write_collection(entry, JsonLines(corpus), JsonLines(queries), judgements, self.skip_unknown)

        key = {
            "reader": "beir",
            "corpus": content_digest(corpus),
            "queries": content_digest(queries),
            "qrels": {split: content_digest(file) for split, file in qrels.items()},
            "skip_unknown": self.skip_unknown,
        }
        entry = store.entry("collection", key, build, version=TABLES_VERSION)
        splits = {split: SourceSplit(file.stem, f"qrels/{file.name}") for split, file in qrels.items()}
        return Tables(folder.resolve().name, entry, splits)
