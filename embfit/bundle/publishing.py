"""Making a version: files first, each measured through what was written, then the manifest, then its number."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as release
from pathlib import Path
from typing import Any

import numpy as np

from embfit.atomic_files import write_text
from embfit.bundle import gates
from embfit.bundle.documents import read_documents, write_documents
from embfit.bundle.manifest import (
    FILE,
    DocumentsRecord,
    IndexRecord,
    Manifest,
    ModelRecord,
    QualityRecord,
    digest_files,
    read_manifest,
    verify,
    write_manifest,
)
from embfit.bundle.opening import APART, INDEX, MODEL, PROBES, WORDS, probe_distance
from embfit.bundle.quality import Measured, measure, measured_before, sample_queries
from embfit.bundle.searching import Searcher
from embfit.bundle.seen_documents import SeenDocuments
from embfit.bundle.vector_reuse import EarlierVersion, document_vectors, find_earlier
from embfit.bundle.versions import BundleVersions
from embfit.errors import UserError
from embfit.evaluator.systems import EvaluationContext
from embfit.index import BM25Index, DatabaseIndex, Index, IndexBuilder, IndexInput, Publication, load_index
from embfit.index.files import read_settings
from embfit.model import Encoder, Pretrained, encoder_at, save_encoder
from embfit.model.back_ends.graph import BackEnd
from embfit.model.fingerprint import frozen
from embfit.model.lora import has_adapter, merge
from embfit.records import Collection, Embeddings
from embfit.store import Store
from embfit.version import __version__

log = logging.getLogger(__name__)

PROBED = 8  # queries whose vectors are published with the model
PACKAGES = ("torch", "transformers", "tokenizers", "faiss-cpu")
RUNTIMES: Mapping[BackEnd, tuple[str, ...]] = {"torch": (), "onnx": ("onnxruntime",), "openvino": ("openvino",)}
SCRATCH = "scratch"  # of the unfinished folder; not published


@dataclass(frozen=True)
class Contents:
    """The parts of a version that is to be made.

    Args:
        encoder: embeds queries and documents.
        collection: has the documents, and queries to measure with.
        builder: makes the index of vectors.
        words: BM25's index of the same documents; None leaves it out.
        texts: whether titles and texts are kept, and not ids and metadata alone.
        dims: dimensions that the model was trained to be cut to.
        run: the folder of the run.
        trained_on: identifies the training pairs of the encoder; empty takes what a version of the same encoder says.
        seen: documents that the encoder was trained on; None takes those that versions of it name.
    """

    encoder: Encoder
    collection: Collection
    builder: IndexBuilder
    words: BM25Index | None = None
    texts: bool = True
    dims: Sequence[int] = ()
    run: str = ""
    trained_on: str = ""
    seen: SeenDocuments | None = None


@dataclass(frozen=True)
class Published:
    """A new version, and what was measured of it."""

    manifest: Manifest
    measured: Measured


def publish(
    versions: BundleVersions, contents: Contents, contexts: Sequence[EvaluationContext], store: Store
) -> Published:
    """Make a version, measure it and publish it; no pointer is moved.

    Documents whose text an earlier version has, encoded by the same model, are not encoded again. A process that is
    killed leaves no version; vectors that it had encoded are in the store.

    Args:
        versions: of the bundle.
        contents: what goes into it.
        contexts: the splits that it is measured on.
        store: keeps what is encoded.

    Raises:
        UserError: there is no document, a vector is not finite, or what was written does not give the same vectors.
        OSError: the disk is full, or the folder cannot be written.
    """
    collection, encoder = contents.collection, contents.encoder
    if not len(collection.corpus):
        raise UserError(f"{collection.name} has no documents; a bundle needs one")
    _make_whole(encoder)
    with frozen(encoder), versions.publishing() as (number, folder):
        scratch = folder / SCRATCH
        scratch.mkdir()
        earlier = find_earlier(versions, encoder, collection)
        embeddings = document_vectors(encoder, collection, store, earlier, scratch)
        publication = Publication(
            versions.name, versions.identity(), number, versions.numbers(), collection, contents.texts
        )
        _write_index(folder / INDEX, contents.builder, embeddings, earlier, publication)
        model = write_model(folder, encoder, sample_queries(collection, contexts[0].split), contents.dims, store)
        columns = write_documents(folder, collection, contents.texts)
        seen = _handed_on(versions, encoder, earlier) if contents.seen is None else contents.seen
        if seen is not None:
            seen.write(folder)
        if contents.words is not None:
            (folder / WORDS).mkdir()
            contents.words.save(folder / WORDS)
        reused = 0 if earlier is None else int((earlier.rows >= 0).sum())
        documents = DocumentsRecord(
            count=len(collection.corpus),
            sha256=collection.corpus_digest,
            columns=columns,
            texts=contents.texts,
            encoded=len(collection.corpus) - reused,
            reused=reused,
            removed=0 if earlier is None else earlier.removed,
        )
        index = load_index(folder / INDEX)
        searcher = Searcher(encoder, index, read_documents(folder, versions.name, documents), contents.words)
        measured = measure(searcher, embeddings, contexts)
        write_text(folder / gates.FILE, json.dumps(measured.record(), ensure_ascii=False) + "\n")
        if earlier is not None:
            earlier.lease.release()
        del embeddings
        shutil.rmtree(scratch)
        manifest = Manifest(
            name=versions.name,
            version=number,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            model=model,
            index=IndexRecord(
                kind=str(read_settings(folder / INDEX)["kind"]),
                fingerprint=index.fingerprint,
                bytes=sum(path.stat().st_size for path in (folder / INDEX).iterdir()),
                recall=measured.recall,
            ),
            documents=documents,
            files=digest_files(folder),
            words=None if contents.words is None else contents.words.fingerprint,
            quality=quality_record(measured),
            latency_ms=measured.latency_ms,
            based_on=None if earlier is None else earlier.number,
            data=_plain({"name": collection.name, **collection.facts}),
            run=contents.run,
            trained_on=_trained_on(versions, contents),
            embfit=__version__,
        )
        write_manifest(folder, manifest)
    _keep_collection(index)
    return Published(manifest, measured)


def find_published(
    versions: BundleVersions, contents: Contents, contexts: Sequence[EvaluationContext]
) -> Published | None:
    """Return the version that an interrupted run published of the same model and documents; None where it did not.

    Args:
        versions: of the bundle.
        contents: what was to go into it; `run` is the folder of the interrupted run.
        contexts: the splits that it is measured on.
    """
    collection, encoder = contents.collection, contents.encoder
    _make_whole(encoder)
    with frozen(encoder):
        wanted = (encoder.fingerprint("query"), encoder.fingerprint("document"), collection.corpus_digest)
        trained_on = _trained_on(versions, contents)
        for number in reversed(versions.numbers()):
            folder = versions.folder / str(number)
            try:
                manifest = read_manifest(folder)
                held = (manifest.model.query, manifest.model.document, manifest.documents.sha256)
                its_run = Path(manifest.run).absolute() == Path(contents.run).absolute()
                if its_run and (*held, manifest.trained_on) == (*wanted, trained_on):
                    verify(folder, manifest)
                    documents = read_documents(folder, versions.name, manifest.documents)
                    index = load_index(folder / INDEX)
                    _keep_collection(index)
                    searcher = Searcher(encoder, index, documents, contents.words)
                    answers = gates.read_quality(folder)["answers"]
                    return Published(manifest, measured_before(searcher, contexts, manifest, answers))
            except UserError as error:
                log.warning("%s; it is passed over", error)
    return None


def _keep_collection(index: Index[Any]) -> None:
    """Have a published version's collection in a database kept, if it has one."""
    if isinstance(index, DatabaseIndex):
        index.keep()


def _trained_on(versions: BundleVersions, contents: Contents) -> str:
    """Return what identifies the training pairs of the encoder: as said, or as a version that has it says."""
    known = (manifest.trained_on for _, manifest in _versions_of(versions, contents.encoder) if manifest.trained_on)
    return contents.trained_on or next(known, "")


def _handed_on(versions: BundleVersions, encoder: Encoder, earlier: EarlierVersion | None) -> SeenDocuments | None:
    """Return the documents that versions of the encoder say it was trained on; None where none is known."""
    folders = {folder for folder, _ in _versions_of(versions, encoder)}
    if earlier is not None:
        folders.add(versions.folder / str(earlier.number))
    seen = SeenDocuments.of(())
    for folder in folders:
        seen |= SeenDocuments.read(folder)
    return seen or None


def _versions_of(versions: BundleVersions, encoder: Encoder) -> Iterator[tuple[Path, Manifest]]:
    """Yield the versions that have an encoder: the one that it was loaded from, then those of the bundle, newest first.

    The first has the same weights, whichever back end and precision they are computed by now.
    """
    loaded_from = Path(encoder.source).absolute()
    folders = [loaded_from.parent] if loaded_from.name == MODEL and (loaded_from.parent / FILE).is_file() else []
    same = (encoder.fingerprint("query"), encoder.fingerprint("document"))
    for folder in (*folders, *(versions.folder / str(number) for number in reversed(versions.numbers()))):
        try:
            manifest = read_manifest(folder)
        except UserError:
            continue  # damaged, which is said where its vectors are looked for
        if folder in folders or (manifest.model.query, manifest.model.document) == same:
            yield folder, manifest


def _make_whole(encoder: Encoder) -> None:
    """Add what low-rank adapters say to the weights: a version holds all that it needs."""
    if has_adapter(encoder.backbone):
        merge(encoder.backbone)


def _write_index(
    folder: Path,
    builder: IndexBuilder,
    embeddings: Embeddings,
    earlier: EarlierVersion | None,
    publication: Publication,
) -> None:
    folder.mkdir()
    before = None if earlier is None else earlier.index
    try:
        builder.write(IndexInput(embeddings, before, publication, "indexing documents"), folder)
    except ValueError as error:
        raise UserError(f"the documents cannot be indexed: {error}") from error


def write_model(
    folder: Path, encoder: Encoder, queries: Sequence[str], dims: Sequence[int], store: Store
) -> ModelRecord:
    """Write the encoder of a version, and hold what is read back to the one that is at work.

    Args:
        folder: of the version.
        encoder: is written.
        queries: of which the first are its probes.
        dims: dimensions that its vectors may be cut to.
        store: keeps what the back end is converted to.

    Raises:
        UserError: what was written gives other vectors.
    """
    save_encoder(encoder, folder / MODEL)
    probes = list(queries[:PROBED])
    vectors = encoder.embed(probes, "query").rows
    np.save(folder / PROBES, vectors)
    place = str(folder / MODEL)
    like = Pretrained(place, precision=encoder.computes_in, backend=encoder.back_end)
    saved = encoder_at(place, like).load(str(encoder.device), store=store)
    distance = probe_distance(saved, probes, vectors)
    if distance > APART or saved.fingerprint("query") != encoder.fingerprint("query"):
        raise UserError(
            f"{encoder.source}: what was saved of the model gives other vectors than the model itself (1 - cosine up "
            f"to {distance:.2g}), so no version was made"
        )
    return ModelRecord(
        query=encoder.fingerprint("query"),
        document=encoder.fingerprint("document"),
        width=encoder.width,
        max_length=encoder.max_length,
        precision=encoder.computes_in,
        source=encoder.source,
        dims=sorted({*dims}),
        versions={name: release(name) for name in (*PACKAGES, *RUNTIMES[encoder.back_end])},
        back_end=encoder.back_end,
        probes=probes,
    )


def quality_record(measured: Measured) -> QualityRecord | None:
    """Return what a manifest says of a version's quality; None where nothing was judged."""
    if not measured.evaluations:
        return None
    first = measured.evaluations[0]
    queries = int(first.facts["queries"])
    return QualityRecord(first.split, measured.judgements, dict(first.metrics), queries)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON keeps them."""
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found
