"""Build a token index and change it: new files are written first, and the manifest that names them last."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from embfit.atomic_files import FileFacts, replacing, replacing_folder
from embfit.errors import UserError
from embfit.index.token_vectors.centroids import sampled_for
from embfit.index.token_vectors.codec import TokenCodec
from embfit.index.token_vectors.codec_files import draw_sample, write_codec
from embfit.index.token_vectors.manifest import (
    CODEC,
    DELETED,
    SEGMENT,
    Manifest,
    SegmentFacts,
    changing,
    new_revision,
)
from embfit.index.token_vectors.pooling import pooled_counts
from embfit.index.token_vectors.segment import Segment, add_postings, copy_segments, encode_segment
from embfit.index.token_vectors.settings import TokenIndexing
from embfit.index.token_vectors.storage import facts_of, write
from embfit.vectors import Vectors


def build(
    documents: Vectors[np.ndarray],
    folder: Path,
    settings: TokenIndexing,
    source: str,
    codec: TokenCodec | None,
    label: str | None,
) -> Manifest:
    """Write an index, as `TokenIndex.build` documents, and return its manifest."""
    vectors = int(pooled_counts(documents.counts, settings.pool_factor, settings.protected).sum())
    form = settings.format_for(len(documents), vectors, documents.width) if codec is None else codec.form
    candidates = settings.candidates_for(len(documents), vectors)
    if codec is None:
        wanted = settings.centroids_for(form, candidates, vectors)
        codec = TokenCodec.fit(form, draw_sample(documents, sampled_for(wanted), settings), wanted, settings.seed)
    folder.mkdir(parents=True, exist_ok=True)
    with changing(folder):
        manifest = Manifest(
            source=source,
            dim=documents.width,
            settings=settings,
            form=form,
            candidates="exact" if candidates == "centroids" and codec.centroids is None else candidates,
            fitted=vectors,
            revision=new_revision(),
            codec=None,
            segments=(),
            deleted=None,
            files={},
        )
        if codec.centroids is not None:
            name = f"{CODEC}{manifest.revision}"
            write_codec(folder / name, codec)
            manifest = replace(manifest, codec=name, files=facts_of(folder / name))
        manifest = _with_documents(folder, manifest, codec, documents, label)
        manifest.write(folder)
    return manifest


def add(
    folder: Path,
    manifest: Manifest,
    codec: TokenCodec,
    documents: Vectors[np.ndarray],
    source: str,
    label: str | None,
) -> Manifest:
    """Write further documents as a segment and return the new manifest."""
    check_source(folder, manifest, source)
    if documents.width != manifest.dim:
        raise ValueError(f"vectors of {documents.width} dimensions cannot be added to an index of {manifest.dim}")
    with changing(folder, manifest.revision):
        grown = replace(manifest, revision=new_revision())
        grown = _with_documents(folder, grown, codec, documents, label)
        grown.write(folder)
    return grown


def delete(folder: Path, manifest: Manifest, rows: np.ndarray) -> Manifest:
    """Record all rows that are deleted, earlier ones too, and return the new manifest."""
    with changing(folder, manifest.revision):
        revision = new_revision()
        name = f"{DELETED}{revision}.npy"
        with replacing(folder / name) as path:
            write(path, rows)
        files = {name: facts for name, facts in manifest.files.items() if name != manifest.deleted}
        files[name] = FileFacts.of(folder / name)
        shrunk = replace(manifest, revision=revision, deleted=name, files=files)
        shrunk.write(folder)
    return shrunk


def compact(
    folder: Path, manifest: Manifest, codec: TokenCodec, kept: Sequence[tuple[Segment, np.ndarray]]
) -> Manifest:
    """Write chosen documents of each segment as one segment and return the new manifest."""
    with changing(folder, manifest.revision):
        of_codec = {name: facts for name, facts in manifest.files.items() if name.startswith(CODEC)}
        bare = replace(manifest, revision=new_revision(), segments=(), deleted=None, files=of_codec)
        whole = _with_segment(folder, bare, codec, lambda unfinished: copy_segments(unfinished, kept, codec.width))
        whole.write(folder)
    return whole


def copy(folder: Path, manifest: Manifest, target: Path) -> None:
    """Copy an index into another folder."""
    if target.resolve() == folder.resolve():
        return
    target.mkdir(parents=True, exist_ok=True)
    with changing(target):
        for name in manifest.parts:  # names of parts are unique, so no file of an existing index is overwritten
            if (folder / name).is_dir():
                with replacing_folder(target / name) as unfinished:
                    shutil.copytree(folder / name, unfinished, dirs_exist_ok=True)
            else:
                with replacing(target / name) as path:
                    shutil.copyfile(folder / name, path)
        manifest.write(target)


def check_source(folder: Path, manifest: Manifest, source: str) -> None:
    """Check that vectors come from the same source as those of an index.

    Raises:
        UserError: they come from another one.
    """
    if source != manifest.source:
        raise UserError(
            f"{folder} holds vectors made by {manifest.source[:12] or 'an unnamed model'}, and these were made by "
            f"{source[:12] or 'an unnamed model'}; use the model that the index was built with, or build it again"
        )


def _with_documents(
    folder: Path, manifest: Manifest, codec: TokenCodec, documents: Vectors[np.ndarray], label: str | None
) -> Manifest:
    return _with_segment(
        folder,
        manifest,
        codec,
        lambda unfinished: encode_segment(unfinished, documents, codec, manifest.settings, label),
    )


def _with_segment(folder: Path, manifest: Manifest, codec: TokenCodec, fill: Callable[[Path], None]) -> Manifest:
    """Write a segment and return the manifest with it."""
    name = f"{SEGMENT}{manifest.revision}"
    with replacing_folder(folder / name) as unfinished:
        fill(unfinished)
        if manifest.candidates == "centroids":
            add_postings(unfinished, codec)
    written = Segment.open(folder / name, postings=False)
    facts = SegmentFacts(name, len(written), len(written.packed))
    files = {**manifest.files, **facts_of(folder / name)}
    return replace(manifest, segments=(*manifest.segments, facts), files=files)
