"""What a token index is made of: written last, so that a folder holds the index before a change or the one after."""

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
from embfit.index.token_vectors.settings import TokenCandidates, TokenIndexing

KIND = "tokens"
VERSION = 1  # of the files
CODEC, SEGMENT, DELETED = "codec-", "segment-", "deleted-"  # begin the names of what the manifest names


@dataclass(frozen=True)
class SegmentFacts:
    """One part of an index: documents that were added at once.

    Args:
        name: the name of its folder.
        documents: how many documents there are.
        vectors: how many vectors they have together.
    """

    name: str
    documents: int
    vectors: int


@dataclass(frozen=True)
class Manifest:
    """All that an index is made of.

    Args:
        source: identifies what made the vectors.
        dim: dimensions of a vector.
        settings: the settings that were asked for.
        form: the format that the settings came to.
        candidates: how candidates are found.
        fitted: how many vectors there were when the codec was fitted.
        revision: names this state of the index, and the files that the change to it wrote.
        codec: the folder of centroids and tables; None where the format has neither.
        segments: in the order of their rows.
        deleted: the file of the rows that are deleted; None where none is.
        files: what is recorded of each file.
    """

    source: str
    dim: int
    settings: TokenIndexing
    form: TokenFormat
    candidates: TokenCandidates
    fitted: int
    revision: str
    codec: str | None
    segments: tuple[SegmentFacts, ...]
    deleted: str | None
    files: Mapping[str, FileFacts]

    @property
    def documents(self) -> int:
        """How many rows there are, deleted ones counted."""
        return sum(segment.documents for segment in self.segments)

    @property
    def vectors(self) -> int:
        """How many vectors those have."""
        return sum(segment.vectors for segment in self.segments)

    def write(self, folder: Path) -> None:
        """Publish the index, then remove what only the one before it was made of."""
        write_settings(folder, KIND, {"version": VERSION, **asdict(self)})
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
        """Read what an index is made of.

        Raises:
            UserError: the folder holds no token index, or one of another version.
        """
        found = read_settings(folder)
        if (found.pop("kind", None), found.pop("version", None)) != (KIND, VERSION):
            raise UserError(f"{folder / SETTINGS} is not a token index of version {VERSION}; build it again")
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
    """Remove a file or folder that nothing names any longer."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def new_revision() -> str:
    """Return a name that no other change has."""
    return uuid.uuid4().hex[:12]


@contextmanager
def changing(folder: Path, revision: str | None = None) -> Iterator[None]:
    """Keep other processes from changing the index while the block runs.

    Args:
        folder: the index's folder.
        revision: the revision that the caller has opened; None where it replaces whatever is there.

    Raises:
        UserError: another process is changing the index, or has since it was opened.
    """
    try:
        with FileLock(folder / ".lock", timeout=0):
            if revision is not None and Manifest.read(folder).revision != revision:
                raise UserError(f"{folder} was changed since it was opened; open it again")
            yield
    except Timeout:
        raise UserError(f"{folder} is being changed by another process; try again when that has ended") from None
