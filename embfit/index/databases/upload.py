"""Filling the collection of a version, in batches: what a process that was killed had written is not written again."""

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

BATCH = 512  # documents sent at once: 34 MB of texts at Milvus's longest, and a request there may have 64


def fill(
    database: Database, publication: Publication, vectors: Vectors[np.ndarray], source: str, label: str | None
) -> str:
    """Put the vectors of a version's documents into a collection of its own, and return its name.

    An earlier build of the same vectors may have left its collection unfinished: it gets the new name, and only what it
    lacks is written. Other collections that unfinished builds of this bundle left are removed.

    Args:
        database: gets the collection.
        publication: says what the collection is called, and has the documents.
        vectors: one for each document.
        source: identifies the vectors and how they are searched.
        label: the name that progress is shown under; None shows none.

    Raises:
        UserError: the database does not answer, or refuses; or another bundle has the collection's name.
    """
    name = f"{publication.bundle}{SEPARATOR}{publication.version}"
    wanted = Description(publication.identity, source, len(vectors))
    database.shown(publication.bundle)  # what others are to read it by must be free, which is better known before
    there = database.collections(publication.bundle)
    left = left_by_builds(there, publication.identity, publication.published)
    if name in there and name not in left:
        raise UserError(
            f"{database.place} has a collection {name} already, of another bundle; rename the bundle (bundle.name), or "
            "give it a schema or a database of its own"
        )
    begun = [known for known in left if there[known] == wanted][-1:]
    for known in left:
        if known not in begun:
            log.info("%s: removing %s, which no version has", database.place, known)
            database.drop(known)
    if not begun:
        database.create(name, vectors.width, wanted)
    elif begun != [name]:
        database.rename(begun[0], name)
    _add_missing(database, name, publication, vectors, label)
    database.finish(name)
    if (found := database.count(name)) != len(vectors):
        raise UserError(f"{database.place}: {name} has {found} documents of the {len(vectors)} that were sent to it")
    return name


def left_by_builds(there: Mapping[str, Description | None], identity: str, published: Collection[int]) -> list[str]:
    """Return the collections of a bundle that were left by builds which did not end, or that one is filling.

    Args:
        there: the collections of the bundle's name (`Database.collections`).
        identity: of the bundle (`Publication.identity`).
        published: numbers of its versions.
    """
    return [
        name
        for name, found in there.items()
        if found is not None and found.bundle == identity and not found.kept and version_of(name) not in published
    ]


def _add_missing(
    database: Database, name: str, publication: Publication, vectors: Vectors[np.ndarray], label: str | None
) -> None:
    """Add the documents that a collection does not have; whole batches are there in order, a part of one is none."""
    done = database.count(name)
    done = done if done == len(vectors) else done // BATCH * BATCH
    if done:
        log.info("%s: %s has %d of %d documents already", database.place, name, done, len(vectors))
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
        documents: whose columns they are.
        texts: whether titles and texts are among them.
    """
    hidden = {*DIGESTS.names, *(() if texts else ("title", "text"))}
    names = [name for name in documents.corpus.column_names if name not in hidden]
    rows: Mapping[slice, pa.Table] = documents.corpus.select_columns(names).with_format("arrow")
    return rows
