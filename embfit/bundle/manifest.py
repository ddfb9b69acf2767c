"""The manifest of a bundle version: what it holds, what made it, how good it is, and the digest of every file.

It is the last file that is written. A folder without one is no version, however much of it is there.
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
FORMAT = 1  # of the folder; one that a version of embfit does not know is refused


@dataclass(frozen=True)
class ModelRecord:
    """The encoder of a version.

    Args:
        query: the fingerprint of query vectors (`Encoder.fingerprint`).
        document: the fingerprint of document vectors.
        width: dimensions of a vector.
        max_length: tokens that are read of a text.
        precision: what the backbone computed the documents' vectors in.
        source: where the weights came from.
        dims: dimensions that vectors may be cut to, smallest first: those that the model was trained for.
        versions: releases of the packages that compute vectors.
        back_end: what computed the documents' hidden states.
        probes: texts whose query vectors stand in `probes.npy`, by which an opened encoder is checked.
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
        kind: as `index.json` says it.
        fingerprint: the index's own (`Index.fingerprint`).
        bytes: size of its files.
        recall: share of the exact search's first ten documents that it finds; None where it was not measured.
    """

    kind: str
    fingerprint: str
    bytes: int
    recall: float | None = None


@dataclass(frozen=True)
class DocumentsRecord:
    """The documents of a version.

    Args:
        count: how many there are.
        sha256: identifies their ids and texts (`Collection.corpus_digest`).
        columns: columns of the table, metadata included.
        texts: whether titles and texts are kept, and not the ids alone.
        encoded: how many were encoded for this version.
        reused: how many have their vector from an earlier version.
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
    """How good a version is, measured through its own index; the values by query stand in `quality.json`.

    Args:
        split: the split whose queries were asked.
        judgements: identifies the split's queries and judgements.
        metrics: means by metric, such as `ndcg@10`.
        queries: how many have a relevant document.
    """

    split: str
    judgements: str
    metrics: Mapping[str, float]
    queries: int


@dataclass(frozen=True)
class Manifest:
    """What stands in `manifest.json`.

    Args:
        name: the bundle's name.
        version: the number of this version.
        created: when it was published (UTC); for people, since order goes by number.
        model: the encoder.
        index: the index of document vectors.
        documents: the documents.
        files: every file of the folder but the manifest, by its path.
        words: the fingerprint of the BM25 index; None where there is none.
        quality: how good it is; None where the collection has no judgements.
        latency_ms: one query's milliseconds, encoding and search: `p50` and `p95`.
        based_on: the version whose vectors were used again.
        data: what the collection says of itself, and where it was read from.
        run: the folder of the run that made it.
        trained_on: identifies the training pairs of the model (`training_digest`); empty where they are not known.
        embfit: embfit's version.
        bridge: of a version whose queries are mapped into an older model's space: the model, and how the map was
            fitted; empty for all others.
        format: of the folder.
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
        """The name and the version, as answers and messages have them: `NAME@VERSION`."""
        return f"{self.name}@{self.version}"

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(record.bytes for record in self.files.values())


_ADAPTER = TypeAdapter(Manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest, whole or not at all."""
    write_text(folder / FILE, json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a version.

    Raises:
        UserError: the folder has none, or it is not one of this format.
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
    """Return the size and the digest of every file in a folder but its manifest, by path."""
    return {path.relative_to(folder).as_posix(): FileFacts.of(path) for path in _files(folder)}


def verify(folder: Path, manifest: Manifest, contents: bool = True) -> None:
    """Hold the files of a version to its manifest.

    Args:
        folder: of the version.
        manifest: its own.
        contents: whether every byte is read; else files are held to their sizes alone.

    Raises:
        UserError: a file is missing, was added, or is not what was published.
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
