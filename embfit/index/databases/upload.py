"""Fill the collection of a version, in batches; a build continues from what an interrupted one has written."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa

from embfit.errors import UserError
from embfit.index.databases.database import SEPARATOR, Database, Description, version_of
from embfit.index.protocol import Publication
from embfit.progress import progress
from embfit.records import Collection as Documents
from embfit.text_digests import DIGESTS
from embfit.vectors import Vectors

log = logging.getLogger(__name__)

BATCH = 512  # documents in a request: at most 34 MB of texts at Milvus's limit for a text, and its requests hold 64 MB


def fill(
    database: Database, publication: Publication, vectors: Vectors[np.ndarray], source: str, label: str | None
) -> str:
    """Put the vectors of a version's documents into a collection of its own, and return the collection's name.

    If an interrupted build of the same vectors left a collection, that is renamed and completed. Collections that other
    interrupted builds of this bundle left are removed.

    Args:
        database: where the collection is created.
        publication: names the collection, and has the documents.
        vectors: one for each document.
        source: identifies the vectors and how they are searched.
        label: the name that progress is shown under; None shows none.

    Raises:
        UserError: the database does not answer or rejects a request, or another bundle has a collection of this name.
    """
    name = f"{publication.bundle}{SEPARATOR}{publication.version}"
    wanted = Description(publication.identity, source, len(vectors))
    database.alias_target(publication.bundle)  # raises before any work if something else has the alias's name
    existing = database.collections(publication.bundle)
    unfinished = unfinished_collections(existing, publication.identity, publication.published)
    if name in existing and name not in unfinished:
        raise UserError(
            f"{database.place} already has a collection {name} of another bundle; rename the bundle (bundle.name), or "
            "use another schema or database"
        )
    continued = [known for known in unfinished if existing[known] == wanted][-1:]
    for known in unfinished:
        if known not in continued:
            log.info("%s: removing %s, which belongs to no version", database.place, known)
            database.drop(known)
    if not continued:
        database.create(name, vectors.width, wanted)
    elif continued != [name]:
        database.rename(continued[0], name)
    _add_missing(database, name, publication, vectors, label)
    database.finish(name)
    if (found := database.count(name)) != len(vectors):
        raise UserError(
            f"{database.place}: {name} has {found} documents after {len(vectors)} were sent; run the same command again"
        )
    return name


def unfinished_collections(
    existing: Mapping[str, Description | None], identity: str, published: Collection[int]
) -> list[str]:
    """Return a bundle's collections that belong to no version: an interrupted build left them, or a build is running.

    Args:
        existing: the collections of the bundle's name (`Database.collections`).
        identity: identifies the bundle (`Publication.identity`).
        published: the numbers of its versions.
    """
    return [
        name
        for name, found in existing.items()
        if found is not None and found.bundle == identity and not found.kept and version_of(name) not in published
    ]


def _add_missing(
    database: Database, name: str, publication: Publication, vectors: Vectors[np.ndarray], label: str | None
) -> None:
    """Add the documents that a collection lacks; batches are written in order, so an incomplete one is sent again."""
    done = database.count(name)
    done = done if done == len(vectors) else done // BATCH * BATCH
    if done:
        log.info("%s: %s already has %d of %d documents", database.place, name, done, len(vectors))
    rows = readable_columns(publication.documents, publication.texts)
    with progress(label, len(vectors), "documents", completed=done) as advance:
        for start in range(done, len(vectors), BATCH):
            part = vectors.part(start, min(start + BATCH, len(vectors)))
            table: pa.Table = rows[start : start + BATCH]
            database.add(name, start, np.ascontiguousarray(part.flat(), np.float32), table)
            advance(len(part))


def readable_columns(documents: Documents, texts: bool) -> Mapping[slice, pa.Table]:
    """Return the documents' columns that others may read, as Arrow tables by slices of rows.

    Args:
        documents: the documents.
        texts: whether to include titles and texts.
    """
    hidden = {*DIGESTS.names, *(() if texts else ("title", "text"))}
    names = [name for name in documents.corpus.column_names if name not in hidden]
    rows: Mapping[slice, pa.Table] = documents.corpus.select_columns(names).with_format("arrow")
    return rows
