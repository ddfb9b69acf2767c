"""Publishes a version: writes the files, measures through them, then writes the manifest and assigns the number."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
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
from embfit.bundle.training_record import recorded_documents, recorded_pairs
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
SCRATCH = "scratch"  # a file of the unfinished folder; not published


@dataclass(frozen=True)
class Contents:
    """The contents of a new version.

    Args:
        encoder: embeds queries and documents.
        collection: the documents, and queries to measure with.
        builder: builds the index of vectors.
        words: the BM25 index of the same documents; None for none.
        texts: whether to keep titles and texts.
        dims: dimensions to which the model was trained to be cut.
        run: the folder of the run.
        trained_on: identifies the training pairs of the encoder; empty uses the record of a version of it.
        seen: documents that the encoder was trained on; None uses the records of versions of the same encoder.
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
    """A new version and its measurements."""

    manifest: Manifest
    measured: Measured


def publish(
    versions: BundleVersions, contents: Contents, contexts: Sequence[EvaluationContext], store: Store
) -> Published:
    """Make a version, measure it and publish it, without moving a pointer.

    Documents that an earlier version has encoded with the same text and model are not encoded again. A process that is
    killed leaves no version, but its vectors are in the store.

    Args:
        versions: the versions of the bundle.
        contents: the contents of the version.
        contexts: the splits on which it is measured.
        store: keeps the vectors.

    Raises:
        UserError: there are no documents, the index cannot hold their vectors, its server does not answer, a vector is
            not finite, or the saved model gives different vectors.
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
        seen = recorded_documents(versions, encoder, earlier) if contents.seen is None else contents.seen
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
            trained_on=contents.trained_on or recorded_pairs(versions, encoder),
            embfit=__version__,
        )
        write_manifest(folder, manifest)
    _keep_collection(index)
    return Published(manifest, measured)


def find_published(
    versions: BundleVersions, contents: Contents, contexts: Sequence[EvaluationContext]
) -> Published | None:
    """Return the version that an interrupted run published of the same model and documents; None if there is none.

    Args:
        versions: the versions of the bundle.
        contents: the contents of the version; `run` is the folder of the interrupted run.
        contexts: the splits on which it is measured.
    """
    collection, encoder = contents.collection, contents.encoder
    _make_whole(encoder)
    with frozen(encoder):
        wanted = (encoder.fingerprint("query"), encoder.fingerprint("document"), collection.corpus_digest)
        trained_on = contents.trained_on or recorded_pairs(versions, encoder)
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
                log.warning("%s; it is skipped", error)
    return None


def _keep_collection(index: Index[Any]) -> None:
    """Mark a published version's collection in a database, if it has one, as kept."""
    if isinstance(index, DatabaseIndex):
        index.keep()


def _make_whole(encoder: Encoder) -> None:
    """Merge low-rank adapters into the weights, so that a version needs no other files."""
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
    """Write the encoder of a version, read it back, and check that it gives the same vectors.

    Args:
        folder: the version's folder.
        encoder: the encoder to write.
        queries: queries, of which the first become its probes.
        dims: dimensions to which its vectors may be cut.
        store: keeps converted models.

    Raises:
        UserError: the saved model gives different vectors.
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
    """Return the manifest's record of a version's quality; None without judgements."""
    if not measured.evaluations:
        return None
    first = measured.evaluations[0]
    queries = int(first.facts["queries"])
    return QualityRecord(first.split, measured.judgements, dict(first.metrics), queries)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values in the form that JSON keeps."""
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found
