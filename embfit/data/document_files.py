"""The files of documents below a folder: found by globs, each once, whatever links there are."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from embfit.data.formats.readers import FORMATS, PLAIN, Format, UnreadableError, has_reader
from embfit.data.skipped_files import LeftOutFiles

MEGABYTE = 1_000_000


class DocumentFile(NamedTuple):
    """A file: its path, its name within the source (`guide/install.md`), its format and the digest of its content."""

    path: Path
    name: str
    format: Format
    digest: str

    def read(self) -> bytes:
        """Return the content that the digest is of.

        Raises:
            ChangedFileError: the file has another content by now, or is gone.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ChangedFileError(self.name) from error
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise ChangedFileError(self.name)
        return content


class ChangedFileError(Exception):
    """A file changed while it was read."""


class Globs:
    """Patterns of paths: `*.md` matches a name in any folder, `guide/**/*.md` a path, `build` a folder with all in it.

    As in `.gitignore`, a pattern without a slash (but for one at its end) holds at any depth.

    Args:
        patterns: the globs; `*` and `?` match no slash, `**` does.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        joined = "|".join(map(_expression, patterns)) or r"(?!)"
        self._expression = re.compile(rf"(?:{joined})\Z", re.DOTALL)

    def match(self, name: str) -> bool:
        """Whether one of the patterns matches a path, or a folder that it is in."""
        parts = name.split("/")
        return any(self._expression.match("/".join(parts[:end])) for end in range(1, len(parts) + 1))


def _expression(pattern: str) -> str:
    """Return the regular expression of a glob."""
    bare = pattern.removeprefix("./").rstrip("/")
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", bare.removeprefix("/"))
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    said = "".join(
        known.get(part) or (part.replace("[!", "[^", 1) if part.startswith("[") and len(part) > 2 else re.escape(part))
        for part in parts
    )
    return said if "/" in bare else f"(?:.*/)?{said}"


def find_documents(
    root: Path,
    include: Sequence[str] | None,
    exclude: Sequence[str],
    max_megabytes: float,
    left_out: LeftOutFiles,
) -> list[DocumentFile]:
    """Return the files of documents at or below a path, in the same order on every machine.

    Hidden files and folders are passed over. A file that several paths lead to is read once, under its own path rather
    than a link's, so links in a circle end.

    Args:
        root: a folder, or a single file.
        include: globs of the files to read, those whose suffix names no format as plain text; None reads all files
            with a suffix of `FORMATS`.
        exclude: globs of files and folders that are passed over.
        max_megabytes: the size from which a file is left out.
        left_out: is told of every file that is not read.
    """
    found = []
    wanted, unwanted = None if include is None else Globs(include), Globs(exclude)
    for path, name in _walk(root, unwanted, left_out):
        form = FORMATS.get(path.suffix.lower())
        if wanted is not None and not wanted.match(name):
            left_out.add("excluded", name)
            continue
        if form is None and wanted is None and root.is_dir():
            left_out.add("other_formats", name)
            continue
        try:
            found.append(_document_file(path, name, form or PLAIN, max_megabytes))
        except UnreadableError as error:
            left_out.add(error.reason, name, error.detail)
    return found


def _document_file(path: Path, name: str, form: Format, max_megabytes: float) -> DocumentFile:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("unreadable", "no file, but a pipe, socket or device")  # which might never end
        if status.st_size > max_megabytes * MEGABYTE:
            raise UnreadableError("too_large", f"{status.st_size / MEGABYTE:,.0f} MB")
        if not has_reader(form):
            raise UnreadableError("no_reader", form.name)
        with path.open("rb") as file:
            return DocumentFile(path, name, form, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise UnreadableError("unreadable", error.strerror or str(error)) from error


def _walk(root: Path, unwanted: Globs, left_out: LeftOutFiles) -> Iterator[tuple[Path, str]]:
    """Yield the paths of files and their names, those that links lead to last."""
    if not root.is_dir():
        yield root, root.name
        return
    seen: set[tuple[int, int]] = set()
    links: list[tuple[Path, str]] = []
    waiting = [(root, "")]
    while waiting or links:
        path, name = waiting.pop() if waiting else links.pop(0)
        try:
            status = path.stat()
            if (status.st_dev, status.st_ino) in seen:
                left_out.add("links_to_files_read_already", name)
                continue
            seen.add((status.st_dev, status.st_ino))
            if not stat.S_ISDIR(status.st_mode):
                yield path, name
                continue
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:  # a broken link, a folder without permission, a file that is gone
            left_out.add("unreadable", name, error.strerror or str(error))
            continue
        inside: list[tuple[Path, str]] = []
        for entry in entries:
            its_name = f"{name}/{entry.name}" if name else entry.name
            if entry.name.startswith("."):
                left_out.add("hidden", its_name)
            elif unwanted.match(its_name):
                left_out.add("excluded", its_name)
            else:
                (links if entry.is_symlink() else inside).append((Path(entry.path), its_name))
        waiting.extend(reversed(inside))
