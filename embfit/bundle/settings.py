"""The `bundle` group: the folder of the versions, their contents, and the gates of a champion."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from embfit.bundle.gates import Gates
from embfit.bundle.mlflow_registry import check_installed, register
from embfit.bundle.versions import BundleVersions
from embfit.errors import ConfigError, UserError

log = logging.getLogger(__name__)

ALL_GATES = Gates()
PASSWORD = re.compile(r"://[^/@:]+:.*@")  # the user and password of an address: user:password@host


@dataclass(frozen=True)
class BundleSettings:
    """Versions in a local folder, or in a shared file system.

    Args:
        dir: the folder of all bundles.
        name: the bundle's name.
        texts: whether to keep titles and texts of documents. Without them answers have only ids, and reranking is not
            possible.
        words: whether to build a BM25 index beside the vectors, for search by words and hybrid search.
        dims: the dimensions to which vectors may be cut, which are those that the model was trained for; None reads
            them from the run that trained it.
        gates: the limits that a version must meet before it becomes champion.
        registry: the address of an MLflow registry to update with versions and pointers; None for none.

    Raises:
        ConfigError: a registry is configured, but MLflow is not installed, or the address contains a password.
    """

    dir: str = "bundles"
    name: str | None = None
    texts: bool = True
    words: bool = True
    dims: Sequence[Annotated[int, Field(ge=1)]] | None = None
    gates: Gates = ALL_GATES
    registry: str | None = None

    def __post_init__(self) -> None:
        if self.registry is not None:
            if PASSWORD.search(self.registry):
                raise ConfigError(
                    "bundle.registry contains a password, which the run's records would show; leave it out, and set "
                    "MLFLOW_TRACKING_PASSWORD (for a server) or PGPASSWORD (for PostgreSQL)"
                )
            check_installed()

    @property
    def folder(self) -> Path:
        """The folder of all bundles."""
        return Path(self.dir).expanduser()

    @property
    def versions(self) -> BundleVersions:
        """The bundle's versions.

        Raises:
            ConfigError: the bundle's name is missing, or is not valid as a folder's name.
        """
        if not self.name:
            raise ConfigError("bundle.name is not set; name the bundle: bundle.name=docs")
        return BundleVersions(self.folder, self.name)

    def register(self) -> None:
        """Update the registry, if one is configured; a failure is only logged.

        Raises:
            ConfigError: the bundle's name is missing.
        """
        if self.registry is not None:
            try:
                register(self.versions, self.registry)
            except UserError as error:
                log.warning("%s; the next change brings it up to date", error)
