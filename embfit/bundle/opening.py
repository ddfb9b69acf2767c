"""Opens a version: verifies it and joins its encoder and index in one object, which is swapped as a whole."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from embfit.bundle.documents import read_documents
from embfit.bundle.manifest import FILE, Manifest, read_manifest, verify
from embfit.bundle.searching import Searcher
from embfit.bundle.versions import BundleVersions, VersionLease
from embfit.errors import UserError, first_line
from embfit.index import BM25Index, load_index
from embfit.model import Encoder, Pretrained, encoder_at
from embfit.model.back_ends.choice import BackEndChoice, choose_back_end
from embfit.model.back_ends.graph import BackEnd, installed
from embfit.model.precision import EncoderPrecision, Precision, by_pytorch, multiplies_bf16
from embfit.store import Store
from embfit.vectors import unit_length

log = logging.getLogger(__name__)

MODEL, INDEX, WORDS, PROBES = "model", "index", "words", "probes.npy"
APART = 1e-3  # largest 1 - cosine between a probe's vector and the published one: bf16 against fp32 stays below 1e-4
ATTEMPTS = 3  # attempts to open a pointer's version while versions are published and removed


@dataclass(frozen=True)
class Bundle:
    """An open version, as a context manager; `prune` does not remove it before it is closed.

    Args:
        folder: the version's folder.
        manifest: its manifest.
        searcher: its encoder, index, BM25 index and documents.
        lease: keeps the folder from being pruned.
        probe_distance: the largest 1 - cosine between its encoder's vectors on this machine and the published ones.
    """

    folder: Path
    manifest: Manifest
    searcher: Searcher
    lease: VersionLease
    probe_distance: float

    @property
    def encoder(self) -> Encoder:
        """The encoder of queries."""
        return self.searcher.encoder

    @property
    def label(self) -> str:
        """The name and the version: `NAME@VERSION`."""
        return self.manifest.label

    def close(self) -> None:
        """Release the version's folder for pruning; files that are open can still be used."""
        self.lease.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class QueryEncoding:
    """The settings of the query encoder; `open_bundle` documents the values."""

    device: str
    precision: Precision
    back_end: BackEndChoice | None
    trust_remote_code: bool
    store: Store | None


def open_bundle(
    path: str | Path,
    which: str | int = "champion",
    device: str = "auto",
    precision: Precision = "auto",
    contents: bool = True,
    trust_remote_code: bool = False,
    backend: BackEndChoice | None = None,
    store: Store | None = None,
) -> Bundle:
    """Open a version of a bundle.

    Args:
        path: a bundle's folder (`bundles/NAME`), or that of one version.
        which: for a bundle's folder, the number of a version, or `champion`, `challenger` or `previous`.
        device: the device of the encoder.
        precision: the number format for queries; auto is that of the documents, if this machine supports it.
        contents: whether to check the digest of every file; otherwise only the sizes.
        trust_remote_code: whether Python code that comes with the model is run.
        backend: the back end for queries; None is that of the documents, or PyTorch if that is not installed.
        store: keeps converted models; None converts only for this object.

    Raises:
        ConfigError: the back end is not installed, or does not support this precision.
        UserError: the version does not exist, a file is damaged, or its encoder gives different vectors on this machine
            than where the version was made.
    """
    folder = Path(path).expanduser()
    queries = QueryEncoding(device, precision, backend, trust_remote_code, store)
    if (folder / FILE).is_file():
        return _open(folder.resolve(), queries, contents)
    versions = BundleVersions(folder.parent, folder.name)
    for attempt in range(1, ATTEMPTS + 1):
        found = versions.path(which)
        try:
            return _open(found, queries, contents)
        except UserError:
            if found.is_dir() or attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def probe_distance(encoder: Encoder, texts: list[str], published: np.ndarray) -> float:
    """Return how far an encoder's vectors of some queries are from published ones: the largest 1 - cosine.

    It is infinite if the shapes differ, or if a vector is not finite.

    Args:
        encoder: the encoder to check.
        texts: the queries.
        published: [V, D] float32, their vectors.
    """
    found = encoder.embed(texts, "query").rows
    if found.shape != published.shape or not np.isfinite(found).all():
        return float("inf")
    cosines = np.einsum("vd,vd->v", unit_length(found.astype(np.float64)), unit_length(published.astype(np.float64)))
    return float((1 - cosines).max(initial=0.0))


def _open(folder: Path, queries: QueryEncoding, contents: bool) -> Bundle:
    lease = VersionLease(folder)
    try:
        manifest = read_manifest(folder)
        verify(folder, manifest, contents)
        documents = read_documents(folder, manifest.label, manifest.documents)
        encoder, same = _encoder(folder, manifest, queries)
        distance = _checked(encoder, manifest, np.load(folder / PROBES), same)
        index = load_index(folder / INDEX)
        words = load_index(folder / WORDS) if manifest.words is not None else None
        for name, found, wanted in (("index", index, manifest.index.fingerprint), ("words", words, manifest.words)):
            if found is not None and (found.fingerprint != wanted or len(found) != manifest.documents.count):
                raise UserError(
                    f"{manifest.label} is damaged: its {name} is not that of its manifest; use another version"
                )
        assert words is None or isinstance(words, BM25Index)
        return Bundle(folder, manifest, Searcher(encoder, index, documents, words), lease, distance)
    except BaseException as error:
        lease.release()
        if isinstance(error, (OSError, ValueError, RuntimeError)):  # errors of libraries about files that were verified
            raise UserError(f"{folder} cannot be opened: {first_line(error)}") from error
        raise


def _encoder(folder: Path, manifest: Manifest, queries: QueryEncoding) -> tuple[Encoder, bool]:
    """Return the encoder of queries, and whether its fingerprint is the published one."""
    place = str(folder / MODEL)
    published = manifest.model
    like = Pretrained(place, precision=by_pytorch(published.precision), trust_remote_code=queries.trust_remote_code)
    encoder = encoder_at(place, like).load(queries.device)
    same = published.back_end != "torch" or encoder.fingerprint("query") == published.query
    encoder.settings = replace(encoder.settings, precision=_precision(queries.precision, manifest, encoder))
    back_end = queries.back_end or _published_back_end(manifest, encoder)
    if back_end == "auto" and published.precision == "int8":
        back_end = published.back_end  # no other precision gives these vectors
    if back_end != "torch":
        precision: EncoderPrecision = queries.precision
        if precision == "auto" and published.precision == "int8":
            precision = "int8"
        elif precision == "auto" and back_end == published.back_end:
            precision = encoder.settings.precision
        choose_back_end(encoder, back_end, precision, queries.store, "server.backend")
    encoder.source = manifest.label
    if back_end == "torch":
        return encoder, same
    if (encoder.back_end, encoder.computes_in) == (published.back_end, published.precision):
        same = encoder.fingerprint("query") == published.query
    return encoder, same


def _published_back_end(manifest: Manifest, encoder: Encoder) -> BackEnd:
    """Return the back end of the documents; PyTorch if that back end cannot compute here."""
    back_end = manifest.model.back_end
    if back_end == "torch" or (installed(back_end) and encoder.device.type == "cpu"):
        return back_end
    log.warning(
        "%s was encoded by %s, which %s; its queries are encoded by torch",
        manifest.label,
        back_end,
        f"is not installed (pip install 'embfit[{back_end}]')" if encoder.device.type == "cpu" else "needs a CPU",
    )
    return "torch"


def _precision(asked: Precision, manifest: Manifest, encoder: Encoder) -> Precision:
    """Return the number format for queries."""
    if asked != "auto":
        return asked
    if manifest.model.precision == "bf16" and not multiplies_bf16(encoder.device):
        log.warning(
            "%s was encoded in bf16, which this machine does not multiply; its queries are encoded in fp32",
            manifest.label,
        )
        return "fp32"
    return by_pytorch(manifest.model.precision)


def _checked(encoder: Encoder, manifest: Manifest, published: np.ndarray, same: bool) -> float:
    """Compare an encoder's vectors with those from where the version was made; return their distance.

    Args:
        encoder: the encoder, in the form in which it will be used.
        manifest: the version's manifest.
        published: the vectors of the manifest's probes.
        same: whether the fingerprint is the published one.

    Raises:
        UserError: it gives different vectors.
    """
    distance = probe_distance(encoder, list(manifest.model.probes), published)
    if distance > APART and manifest.model.precision == "int8" and encoder.computes_in != "int8":
        raise UserError(
            f"{manifest.label} was encoded in int8, and its model gives other vectors in {encoder.computes_in} "
            f"(1 - cosine up to {distance:.2g}, limit {APART:g}), so its index cannot be searched with it; leave "
            f"server.backend at null, on a CPU, with pip install 'embfit[{manifest.model.back_end}]'"
        )
    if distance > APART:
        raise UserError(
            f"{manifest.label}: its model gives other vectors here than where it was made (1 - cosine up to "
            f"{distance:.2g}, limit {APART:g}), so its index cannot be searched with it. It was made with "
            f"{_versions(manifest)}; make a new version on this machine (task=index bundle.name={manifest.name})"
        )
    if not same:
        log.warning(
            "%s was made with %s; this machine has another release or setting, and its vectors agree (1 - cosine up to "
            "%.2g)",
            manifest.label,
            _versions(manifest),
            distance,
        )
    return distance


def _versions(manifest: Manifest) -> str:
    return ", ".join(f"{name} {version}" for name, version in manifest.model.versions.items()) or "unknown releases"
