"""Writes a version's vectors, texts and metadata as one Parquet file, for any vector database."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embfit.atomic_files import replacing
from embfit.bundle.documents import metadata_columns, read_documents
from embfit.bundle.manifest import Manifest, read_manifest, verify
from embfit.bundle.opening import INDEX
from embfit.bundle.versions import VersionLease
from embfit.errors import UserError
from embfit.index import load_index
from embfit.index.protocol import KeepsVectors
from embfit.progress import progress
from embfit.vectors import Vectors

BLOCK = 4096  # documents in a row group: 6 MB at 384 dimensions
FACTS = "embfit"  # key of the file's metadata: JSON
VECTOR = "vector"


def write_parquet(folder: Path, path: Path, label: str | None = None) -> Manifest:
    """Write the documents of a version with their vectors, a block at a time, and return the version's manifest.

    Columns are `id`, `vector` (a list of fixed length; a list of such lists where documents have several vectors),
    `title` and `text` where the version keeps them, and the metadata columns under their own names. The file's
    metadata name the version and the encoder of its queries.

    Args:
        folder: the version's folder.
        path: the file.
        label: the label of the progress; None shows none.

    Raises:
        UserError: the version is damaged, its index keeps no original vectors, or a metadata column has the name of
            one of the file's own.
        OSError: the file cannot be written.
    """
    lease = VersionLease(folder)
    try:
        manifest = read_manifest(folder)
        verify(folder, manifest)
        index = load_index(folder / INDEX, check=False)
        if not isinstance(index, KeepsVectors):
            raise UserError(
                f"{manifest.label} has an index of kind {manifest.index.kind}, which keeps no vectors as they were; "
                "make a version with index=exact"
            )
        documents = read_documents(folder, manifest.label, manifest.documents)
        beside = metadata_columns(documents)
        texts = [name for name in ("title", "text") if name in documents.corpus.column_names]
        if taken := sorted({"id", VECTOR} & {*beside}):
            raise UserError(
                f"{manifest.label} has a metadata column called {taken[0]}, which the file needs for itself; rename it "
                "in the data"
            )
        rows = documents.corpus.select_columns(["_id", *texts, *beside]).with_format("arrow")
        with progress(label, len(index.documents), "documents") as advance, replacing(path) as unfinished:
            writer: pq.ParquetWriter | None = None
            try:
                for start in range(0, len(index.documents), BLOCK):
                    part = index.documents.part(start, min(start + BLOCK, len(index.documents)))
                    table: pa.Table = rows[start : start + BLOCK].replace_schema_metadata()
                    table = table.rename_columns(["id", *table.column_names[1:]])
                    table = table.add_column(1, VECTOR, _column(part))
                    if writer is None:
                        described = table.schema.with_metadata({FACTS: json.dumps(_facts(manifest))})
                        writer = pq.ParquetWriter(unfinished, described, compression="zstd")
                    writer.write_table(table.cast(writer.schema))
                    advance(len(part))
            finally:
                if writer is not None:
                    writer.close()
        return manifest
    finally:
        lease.release()


def _column(vectors: Vectors[np.ndarray]) -> pa.Array:
    """Return vectors as an Arrow column."""
    rows = np.ascontiguousarray(vectors.flat(), np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), vectors.width)
    if vectors.starts is None:
        return flat
    return pa.ListArray.from_arrays(pa.array((vectors.starts - vectors.starts[0]).astype(np.int32)), flat)


def _facts(manifest: Manifest) -> dict[str, object]:
    """Return what a reader of the file needs to know to search it."""
    return {
        "bundle": manifest.label,
        "documents": manifest.documents.count,
        "width": manifest.model.width,
        "similarity": "inner product",
        "query": manifest.model.query,
        "document": manifest.model.document,
    }
