"""The `bundle` group: where versions are kept, what goes into them, and what a champion must hold to."""

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
PASSWORD = re.compile(r"://[^/@:]+:.*@")  # of an address: user:password@host


@dataclass(frozen=True)
class BundleSettings:
    """Versions in a folder of this machine, or of a file system that several share.

    Args:
        dir: the folder of all bundles.
        name: the bundle's name.
        texts: whether titles and texts of documents are kept, and not ids and metadata alone: without them answers are
            ids, and nothing can be reranked.
        words: whether BM25 stands beside the vectors, for search by words and hybrid search.
        dims: dimensions that vectors may be cut to, which are those that the model was trained for; None takes them
            from the run that trained it.
        gates: what a version must hold to before it becomes champion.
        registry: the address of an MLflow registry that is told of versions and pointers; None tells none.

    Raises:
        ConfigError: there is to be a registry, and MLflow is not installed, or its address holds a password.
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
            ConfigError: no bundle is named, or its name cannot be a folder's.
        """
        if not self.name:
            raise ConfigError("bundle.name is not set; name the bundle: bundle.name=docs")
        return BundleVersions(self.folder, self.name)

    def register(self) -> None:
        """Tell the registry of versions and pointers, where there is one; that it cannot be told is only logged.

        Raises:
            ConfigError: no bundle is named.
        """
        if self.registry is not None:
            try:
                register(self.versions, self.registry)
            except UserError as error:
                log.warning("%s; the next change brings it up to date", error)
