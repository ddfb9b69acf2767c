"""Folders in object storage (`s3://`, `gs://`), whose files are copied to this machine and back.

Nothing is read or written in place: work is done on this machine's files, which are downloaded from object storage
and uploaded for others. Arrow, which embfit needs anyway, reads S3 and Google's storage through the
interface of fsspec, which supports others with further packages. Credentials, endpoints and regions are those of the
clouds' own libraries (`AWS_PROFILE`, `AWS_ENDPOINT_URL`, `AWS_REGION`, `GOOGLE_APPLICATION_CREDENTIALS`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from embfit.errors import ConfigError, UserError, first_line
from embfit.progress import progress

REMOTE = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
LOGIN = re.compile(r"[^/@:]*:(?!\d+/)[^@]*@")  # `KEY:SECRET@`, whose secret may hold slashes; no `HOST:80/`
ARROW = ("s3", "gs")  # schemes
RETRY_SECONDS = 60  # seconds for Google's storage, which otherwise looks for credentials for a quarter of an hour
VERSIONS = (  # the names under which fsspec's file systems give an identifier of the content
    "ETag", "etag", "md5Hash", "Content-MD5", "Digest", "generation",
    "mtime", "LastModified", "Last-Modified", "last_modified", "modified", "created",
)  # fmt: skip


def is_remote(path: str) -> bool:
    """Say whether a path is an address in object storage (`s3://bucket/folder`)."""
    return REMOTE.match(path) is not None


def address_problem(address: str) -> str | None:
    """Return why an address is refused (without its keys or options, which logs would show), or None."""
    scheme, _, rest = address.partition("://")
    if LOGIN.match(rest):
        return (
            f"{scheme}://…@{rest.rpartition('@')[2]}: the address holds a key, which logs would show; give keys by the "
            "cloud's own means, such as AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if scheme.lower() in ARROW and "?" in rest:
        return (
            f"{scheme}://{rest.partition('?')[0]}?…: an address takes no options; set AWS_REGION and AWS_ENDPOINT_URL "
            "in the environment"
        )
    return None


@dataclass(frozen=True)
class RemoteFile:
    """A file in object storage.

    Args:
        bytes: the file's size.
        version: identifies the content among others of the same name; empty if the storage gives none.
    """

    bytes: int
    version: str


@dataclass(frozen=True)
class RemoteFolder:
    """A folder in object storage, or a single file.

    Args:
        address: the address: `s3://bucket/folder`.

    Raises:
        ConfigError: the address holds a password, or options, which would be written into logs and run folders.
    """

    address: str

    def __post_init__(self) -> None:
        if refused := address_problem(self.address):
            raise ConfigError(refused)

    def child(self, name: str) -> RemoteFolder:
        """Return a folder or a file in this one."""
        return RemoteFolder(f"{self.address.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rstrip("/").rpartition("/")[2]

    def files(self) -> dict[str, RemoteFile]:
        """Return all files in the folder by their paths in it, sorted; a single file has the path `""`.

        A folder that does not exist has none.

        Raises:
            UserError: the storage cannot be reached or read.
        """
        with self._readable_errors():
            system, root = self._open()
            system.invalidate_cache()
            try:
                entry = system.info(root)
            except FileNotFoundError:
                return {}
            if entry["type"] == "file":
                return {"": _file(entry)}
            found = system.find(root, detail=True, on_error="raise")  # its default hides missing permissions
            return {path.removeprefix(root).lstrip("/"): _file(found[path]) for path in sorted(found)}

    def download(self, names: Sequence[str], folder: Path, label: str | None = None) -> None:
        """Copy the folder's files into a local folder, under the same paths; a single file becomes `folder` itself.

        Raises:
            UserError: the storage cannot be reached or read, a name leads out of the folder, or a file arrived shorter
                than it is.
        """
        if outside := [name for name in names if name.startswith("/") or ".." in name.split("/")]:
            raise UserError(f"{self.address} names {outside[0]}, which is outside that folder; nothing is copied")
        places = {name: folder / name if name else folder for name in names}
        for path in places.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._readable_errors(), progress(label, len(names), "files") as advance:
            system, root = self._open()
            for name, path in places.items():
                remote = f"{root}/{name}" if name else root
                system.get_file(remote, str(path))
                size = system.info(remote)["size"]
                if path.stat().st_size != size:
                    raise UserError(f"{self.address}/{name}: {path.stat().st_size} of {size} bytes came; try again")
                advance()

    def upload(self, names: Sequence[str], folder: Path, label: str | None = None) -> None:
        """Copy local files into the folder, in the given order, each atomically.

        Raises:
            UserError: the storage cannot be reached or written.
        """
        with self._readable_errors(), progress(label, len(names), "files") as advance:
            system, root = self._open()
            for name in names:
                system.put_file(str(folder / name), f"{root}/{name}")
                advance()

    def read_text(self, name: str) -> str | None:
        """Return the text of a file in the folder; None if the file does not exist.

        Raises:
            UserError: the storage cannot be reached or read.
        """
        with self._readable_errors():
            system, root = self._open()
            system.invalidate_cache()
            try:
                return bytes(system.cat_file(f"{root}/{name}")).decode("utf-8")
            except FileNotFoundError:
                return None

    def write_text(self, name: str, text: str) -> None:
        """Write a file in the folder atomically.

        Raises:
            UserError: the storage cannot be reached or written.
        """
        with self._readable_errors():
            system, root = self._open()
            system.pipe_file(f"{root}/{name}", text.encode("utf-8"))

    def _open(self) -> tuple[Any, str]:
        """Return fsspec's file system, and the address in its form."""
        from fsspec.core import url_to_fs  # takes a tenth of a second to import

        scheme, _, path = self.address.partition("://")
        if scheme.lower() in ARROW:
            return _arrow_system(scheme.lower(), path.partition("/")[0]), path.rstrip("/")
        options = {"auto_mkdir": True} if scheme.lower() == "file" else {}
        system, root = url_to_fs(self.address, **options)
        return system, str(root).rstrip("/")

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        """Convert the storage's exceptions to a `UserError` of one line that names the address."""
        try:
            yield
        except FileNotFoundError as error:
            raise UserError(f"{self.address}: there is no such file, folder or bucket") from error
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"{self.address}: {first_line(error)}") from error


@cache
def _arrow_system(scheme: str, bucket: str) -> Any:
    """Return Arrow's file system for a bucket as fsspec's."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import fs

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "s3" and (region or endpoint):  # otherwise Arrow asks AWS for the bucket's region
        system = fs.S3FileSystem(region=region, endpoint_override=endpoint)
    else:
        options = f"?retry_limit_seconds={RETRY_SECONDS}" if scheme == "gs" else ""
        system, _ = fs.FileSystem.from_uri(f"{scheme}://{bucket}{options}")
    return ArrowFSWrapper(system)


def _file(entry: dict[str, Any]) -> RemoteFile:
    """Return fsspec's record of a file.

    Raises:
        ValueError: the record has no size.
    """
    version = next((str(entry[name]) for name in VERSIONS if entry.get(name)), "")
    if entry.get("size") is None:
        raise ValueError(f"the storage gives no size of {entry['name']}; copy it to this machine")
    return RemoteFile(int(entry["size"]), version)
