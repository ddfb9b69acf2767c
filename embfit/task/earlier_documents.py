"""The documents of the last generation of queries, and the changes since then.

A journal knows requests, but not the data that they were about. This record beside it knows the documents of one data
set.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embfit.atomic_files import replacing
from embfit.bundle.changes import DocumentChanges
from embfit.generator.pipeline import journals_of
from embfit.generator.plan import SourceDocument
from embfit.generator.protocol import GeneratedQuery, Generates
from embfit.report.formatting import count
from embfit.run.folder import RunFolder
from embfit.store import Store, digest

log = logging.getLogger(__name__)

COLUMNS = pa.schema({"id": pa.string(), "digest": pa.string(), "queries": pa.int32()})


@dataclass(frozen=True)
class EarlierDocuments:
    """The documents that a generator wrote about the last time, for the same data and settings.

    Args:
        path: the record's file, which exists from the first generation on.
        contents: the digest of each document's text, by id.
        queries: the number of kept queries of each document, by id.
    """

    path: Path
    contents: Mapping[str, bytes]
    queries: Mapping[str, int]

    @classmethod
    def read(cls, generator: Generates, store: Store, run: RunFolder) -> EarlierDocuments:
        """Read the record of a generator about the data of a run's configuration; it is empty the first time."""
        chosen = asdict(generator.documents)  # another limit does not change the data
        key = digest({"data": run.config.get("data"), "generator": generator.name, "documents": chosen})
        path = journals_of(store, run.dir) / "documents" / f"{key[:20]}.parquet"
        rows = pq.read_table(path).to_pylist() if path.is_file() else []
        contents = {row["id"]: row["digest"].encode() for row in rows}
        return cls(path, contents, {row["id"]: row["queries"] for row in rows})

    def compare(self, documents: Sequence[SourceDocument], name: str) -> dict[str, Any]:
        """Compare documents with the earlier ones, and log the changes.

        Args:
            documents: the documents that queries are written about now.
            name: the name of the data.

        Returns:
            The report's `changes`: `new`, `changed` and `removed` documents, and `queries_gone`,
            the earlier queries of changed and removed ones. Nothing the first time.
        """
        if not self.contents:
            return {}
        found = DocumentChanges.between(
            self.contents, {document.id: document.digest.encode() for document in documents}
        )
        gone = sum(self.queries[document] for document in (*found.changed, *found.removed))
        if not found:
            log.info("%s: the documents are those of the last generation", name)
        else:
            log.info(
                "%s: since the last generation, %s new, %d changed and %d removed; %s gone with the old texts",
                name,
                count(len(found.added), "document is", "documents are"),
                len(found.changed),
                len(found.removed),
                count(gone, "query is", "queries are"),
            )
        return {
            "changes": {
                "new": len(found.added),
                "changed": len(found.changed),
                "removed": len(found.removed),
                "queries_gone": gone,
            }
        }

    def replace(self, documents: Sequence[SourceDocument], kept: Iterable[GeneratedQuery]) -> None:
        """Write the record after a generation has ended.

        Args:
            documents: the documents that queries were written about.
            kept: the queries that pass all filters.
        """
        queries = Counter(query.document.id for query in kept)
        columns = [
            [document.id for document in documents],
            [document.digest for document in documents],
            np.array([queries[document.id] for document in documents], np.int32),
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            pq.write_table(pa.Table.from_arrays([pa.array(values) for values in columns], schema=COLUMNS), temporary)
