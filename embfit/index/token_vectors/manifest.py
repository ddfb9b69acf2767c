"""The manifest of a token index: it is written last, so that every change to the index is atomic."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from embfit.atomic_files import FileFacts
from embfit.errors import UserError
from embfit.index.files import SETTINGS, read_settings, write_settings
from embfit.index.token_vectors.codec import TokenFormat
from embfit.index.token_vectors.settings import TokenIndexing, TokenShortlist

KIND = "tokens"
VERSIONS = (1, 2)  # of the files; 2 has candidates from BM25, where an older embfit would find nothing
CODEC, SEGMENT, DELETED = "codec-", "segment-", "deleted-"  # prefixes of the names of an index's parts


@dataclass(frozen=True)
class SegmentFacts:
    """One segment of an index: documents that were added together.

    Args:
        name: the name of its folder.
        documents: the number of its documents.
        vectors: the number of their vectors.
    """

    name: str
    documents: int
    vectors: int


@dataclass(frozen=True)
class Manifest:
    """The settings, parts and files of an index.

    Args:
        source: identifies what made the vectors.
        dim: dimensions of a vector.
        settings: the settings as configured.
        form: the format, with `auto` resolved.
        candidates: how candidates are found, with `auto` resolved.
        fitted: how many vectors there were when the codec was fitted.
        revision: identifies this state of the index; parts that were written with it have it in their names.
        codec: the folder of centroids and tables; None if the index has neither.
        segments: in the order of their rows.
        deleted: the file of deleted rows; None if there are none.
        files: size and digest of each file.
    """

    source: str
    dim: int
    settings: TokenIndexing
    form: TokenFormat
    candidates: TokenShortlist
    fitted: int
    revision: str
    codec: str | None
    segments: tuple[SegmentFacts, ...]
    deleted: str | None
    files: Mapping[str, FileFacts]

    @property
    def documents(self) -> int:
        """The number of rows, including deleted ones."""
        return sum(segment.documents for segment in self.segments)

    @property
    def vectors(self) -> int:
        """The number of vectors, including those of deleted rows."""
        return sum(segment.vectors for segment in self.segments)

    def write(self, folder: Path) -> None:
        """Write the manifest, which publishes the index, then remove parts that it does not name."""
        version = 2 if self.candidates == "bm25" else 1
        write_settings(folder, KIND, {"version": version, **asdict(self)})
        for path in folder.iterdir():
            if path.name.lstrip(".").startswith((CODEC, SEGMENT, DELETED)) and path.name not in self.parts:
                remove(path)

    @property
    def parts(self) -> set[str]:
        """Names of the files and folders beside the manifest."""
        further = (name for name in (self.codec, self.deleted) if name is not None)
        return {*further, *(segment.name for segment in self.segments)}

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read an index's manifest.

        Raises:
            UserError: the folder holds no token index, or one of another version.
        """
        found = read_settings(folder)
        if found.pop("kind", None) != KIND or found.pop("version", None) not in VERSIONS:
            raise UserError(
                f"{folder / SETTINGS} is not a token index of version {' or '.join(map(str, VERSIONS))}; build it again"
            )
        try:
            return cls(
                **{
                    **found,
                    "settings": TokenIndexing(**found["settings"]),
                    "segments": tuple(SegmentFacts(**segment) for segment in found["segments"]),
                    "files": {name: FileFacts(**facts) for name, facts in found["files"].items()},
                }
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder / SETTINGS} does not describe a token index ({error}); build it again") from error


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def new_revision() -> str:
    """Return a unique identifier for a change."""
    return uuid.uuid4().hex[:12]


@contextmanager
def changing(folder: Path, revision: str | None = None) -> Iterator[None]:
    """Keep other processes from changing the index while the block runs.

    Args:
        folder: the index's folder.
        revision: the revision that the caller has opened; None if it replaces any existing index.

    Raises:
        UserError: another process is changing the index, or has changed it since it was opened.
    """
    try:
        with FileLock(folder / ".lock", timeout=0):
            if revision is not None and Manifest.read(folder).revision != revision:
                raise UserError(f"{folder} was changed since it was opened; open it again")
            yield
    except Timeout:
        raise UserError(f"{folder} is being changed by another process; try again when that has finished") from None
