"""Publishes a version with a bridge: a new model for queries, with the index and documents of an older version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from embfit.atomic_files import write_text
from embfit.bundle import documents, gates, seen_documents
from embfit.bundle.manifest import digest_files, write_manifest
from embfit.bundle.opening import INDEX, WORDS, Bundle
from embfit.bundle.publishing import Published, quality_record, write_model
from embfit.bundle.quality import measure, sample_queries
from embfit.bundle.searching import Searcher
from embfit.bundle.versions import BundleVersions
from embfit.evaluator.systems import EvaluationContext
from embfit.model import Encoder
from embfit.model.fingerprint import frozen
from embfit.store import Store
from embfit.version import __version__


def publish_bridged(
    versions: BundleVersions,
    old: Bundle,
    encoder: Encoder,
    contexts: Sequence[EvaluationContext],
    bridge: Mapping[str, Any],
    run: str,
    store: Store,
) -> Published:
    """Publish a version that embeds queries with a new model and uses the index and documents of an open version.

    Its document fingerprint is that of the older model, whose vectors the index holds. No pointer is moved.

    Args:
        versions: the versions of the bundle.
        old: the open version.
        encoder: the new model, which embeds into the space of the old version's vectors.
        contexts: the splits on which the version is measured.
        bridge: the record of the map.
        run: the folder of the run.
        store: keeps converted models.

    Raises:
        UserError: the saved model gives different vectors.
        OSError: the disk is full, or the folder cannot be written.
    """
    with frozen(encoder), versions.publishing() as (number, folder):
        shutil.copytree(old.folder / INDEX, folder / INDEX)
        if old.manifest.words is not None:
            shutil.copytree(old.folder / WORDS, folder / WORDS)
        shutil.copy(old.folder / documents.FILE, folder / documents.FILE)
        if (old.folder / seen_documents.FILE).is_file():
            shutil.copy(old.folder / seen_documents.FILE, folder / seen_documents.FILE)
        probes = sample_queries(contexts[0].collection, contexts[0].split)
        model = write_model(folder, encoder, probes, old.manifest.model.dims, store)
        searcher = Searcher(encoder, old.searcher.index, old.searcher.documents, old.searcher.words)
        measured = measure(searcher, None, contexts)
        write_text(folder / gates.FILE, json.dumps(measured.record(), ensure_ascii=False) + "\n")
        kept = old.manifest.documents
        manifest = replace(
            old.manifest,
            version=number,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            model=replace(model, document=old.manifest.model.document),
            documents=replace(kept, encoded=0, reused=kept.count, removed=0),
            files=digest_files(folder),
            quality=quality_record(measured),
            latency_ms=measured.latency_ms,
            based_on=old.manifest.version,
            run=run,
            trained_on="",
            embfit=__version__,
            bridge=dict(bridge),
        )
        write_manifest(folder, manifest)
    return Published(manifest, measured)
