"""The manifest of a bundle version: its contents, origin and quality, and the digest of every file.

It is written last. A folder without a manifest is not a version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from embfit.atomic_files import FileFacts, write_text
from embfit.errors import UserError
from embfit.model.back_ends.graph import BackEnd, GraphPrecision

FILE = "manifest.json"
FORMAT = 1  # version of the folder's format; an unknown one is refused


@dataclass(frozen=True)
class ModelRecord:
    """The encoder of a version.

    Args:
        query: the fingerprint of query vectors (`Encoder.fingerprint`).
        document: the fingerprint of document vectors.
        width: dimensions of a vector.
        max_length: the most tokens of a text.
        precision: the number format in which the documents' vectors were computed.
        source: the origin of the weights.
        dims: dimensions that vectors may be cut to, smallest first: those that the model was trained for.
        versions: releases of the packages that compute vectors.
        back_end: the back end that computed the documents' vectors.
        probes: texts whose query vectors are in `probes.npy`; an opened encoder is checked by them.
    """

    query: str
    document: str
    width: int
    max_length: int
    precision: GraphPrecision
    source: str
    dims: Sequence[int] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    back_end: BackEnd = "torch"
    probes: Sequence[str] = ()


@dataclass(frozen=True)
class IndexRecord:
    """The index of a version.

    Args:
        kind: the kind in `index.json`.
        fingerprint: the fingerprint of the index (`Index.fingerprint`).
        bytes: the size of its files.
        recall: the share of the exact search's top ten documents that it finds; None if not measured.
    """

    kind: str
    fingerprint: str
    bytes: int
    recall: float | None = None


@dataclass(frozen=True)
class DocumentsRecord:
    """The documents of a version.

    Args:
        count: the number of documents.
        sha256: identifies their ids and texts (`Collection.corpus_digest`).
        columns: the columns of the table, including metadata.
        texts: whether titles and texts are kept.
        encoded: how many documents were encoded for this version.
        reused: how many documents have their vector from an earlier version.
        removed: how many of that version's documents are not in this one.
    """

    count: int
    sha256: str
    columns: Sequence[str]
    texts: bool
    encoded: int
    reused: int
    removed: int


@dataclass(frozen=True)
class QualityRecord:
    """The quality of a version, measured through its own index; the values by query are in `quality.json`.

    Args:
        split: the split of the queries.
        judgements: identifies the split's queries and judgements.
        metrics: the means of the metrics, such as `ndcg@10`.
        queries: the number of queries with a relevant document.
    """

    split: str
    judgements: str
    metrics: Mapping[str, float]
    queries: int


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Args:
        name: the bundle's name.
        version: the number of this version.
        created: when it was published (UTC); for people, because versions are ordered by number.
        model: the encoder.
        index: the index of document vectors.
        documents: the documents.
        files: every file of the folder except the manifest, by its path.
        words: the fingerprint of the BM25 index; None if there is none.
        quality: its quality; None if the collection has no judgements.
        latency_ms: one query's milliseconds, encoding and search: `p50` and `p95`.
        based_on: the version whose vectors were reused.
        data: facts about the collection, and its source.
        run: the folder of the run that made it.
        trained_on: identifies the training pairs of the model (`training_digest`); empty if they are not known.
        embfit: embfit's version.
        bridge: for a version whose queries are mapped into an older model's space, that model and how the map was
            fitted; otherwise empty.
        format: the version of the folder's format.
    """

    name: str
    version: int
    created: str
    model: ModelRecord
    index: IndexRecord
    documents: DocumentsRecord
    files: Mapping[str, FileFacts]
    words: str | None = None
    quality: QualityRecord | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    based_on: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    trained_on: str = ""
    embfit: str = ""
    bridge: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def label(self) -> str:
        """The name and the version for answers and messages: `NAME@VERSION`."""
        return f"{self.name}@{self.version}"

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(record.bytes for record in self.files.values())


_ADAPTER = TypeAdapter(Manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest atomically."""
    write_text(folder / FILE, json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a version.

    Raises:
        UserError: the folder has no manifest, or one of another format.
    """
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{folder} is not a version of a bundle: it has no {FILE}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged ({error.reason}); use another version, or make this one again") from error
    try:
        values = json.loads(text)
        if isinstance(values, dict) and values.get("format", FORMAT) != FORMAT:
            raise UserError(
                f"{path}: format {values['format']} is not known to this version of embfit, which reads format "
                f"{FORMAT}; install the one that wrote it, or make the bundle again"
            )
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{path} is damaged: {place}: {first['msg']}; use another version") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; use another version, or make this one again") from error


def digest_files(folder: Path) -> dict[str, FileFacts]:
    """Return the size and the digest of every file in a folder except its manifest, by path."""
    return {path.relative_to(folder).as_posix(): FileFacts.of(path) for path in _files(folder)}


def verify(folder: Path, manifest: Manifest, contents: bool = True) -> None:
    """Check the files of a version against its manifest.

    Args:
        folder: the version's folder.
        manifest: its manifest.
        contents: whether to check every byte; otherwise only the sizes.

    Raises:
        UserError: a file is missing, was added, or differs from the published one.
    """
    there = {path.relative_to(folder).as_posix() for path in _files(folder)}
    for name, record in manifest.files.items():
        path = folder / name
        if name not in there:
            raise UserError(_damaged(manifest, f"{path} is missing"))
        if (size := path.stat().st_size) != record.bytes:
            raise UserError(_damaged(manifest, f"{path} has {size} bytes, and {record.bytes} were published"))
        if contents and FileFacts.of(path) != record:
            raise UserError(_damaged(manifest, f"{path} is not the file that was published (its SHA-256 differs)"))
    if added := sorted(there - manifest.files.keys()):
        raise UserError(_damaged(manifest, f"{folder / added[0]} was added after it was published"))


def _damaged(manifest: Manifest, what: str) -> str:
    return f"{manifest.label} is damaged: {what}; use another version, or make this one again (task=index)"


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / FILE)
