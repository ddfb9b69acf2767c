"""Registers a bundle in MLflow's model registry: its versions, and its pointers as aliases of the same names.

The bundle's folder is the source of truth. After every change the registry is updated to it as a whole, so if one
update fails, the next one completes it.
"""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from embfit.bundle.manifest import Manifest, read_manifest
from embfit.bundle.pointers import POINTERS
from embfit.bundle.versions import BundleVersions
from embfit.errors import ConfigError, UserError, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

VERSION = "embfit.version"  # the tag with the bundle's number, since MLflow assigns its own numbers
SQLITE = "sqlite:///"


def check_installed() -> None:
    """Check that the packages for the registry are installed.

    Raises:
        ConfigError: MLflow is not installed.
    """
    if find_spec("mlflow") is None:
        raise ConfigError("bundle.registry needs MLflow; install it with: pip install 'embfit[mlflow]'")


def register(versions: BundleVersions, uri: str) -> None:
    """Update a registry to a bundle's versions and pointers.

    Only one process updates it at a time, so no version is registered twice. Pruned versions stay in the registry,
    without an alias.

    Args:
        versions: the versions of the bundle; the registered model has the bundle's name.
        uri: the address of the registry: a database or a server.

    Raises:
        ConfigError: MLflow is not installed.
        UserError: the registry cannot be reached, or refuses the update.
    """
    check_installed()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # embfit works offline
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # read when MLflow is imported
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # MLflow's default of 7 can take minutes
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a new database would log a page of lines
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        if uri.startswith(SQLITE):
            Path(uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        with versions.registering():
            _update(MlflowClient(tracking_uri=uri, registry_uri=uri), versions)
    except (MlflowException, OSError) as error:
        raise UserError(f"bundle.registry={uri} cannot be updated for {versions.name}: {first_line(error)}") from error


def _update(client: MlflowClient, versions: BundleVersions) -> None:
    """Add the versions that the registry lacks, and set its aliases to the bundle's pointers."""
    name = versions.name
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description="A bundle of embfit: model, index and documents")
    known = {
        int(found.tags[VERSION]): str(found.version)
        for found in client.search_model_versions(f"name = '{name}'")
        if VERSION in found.tags
    }
    for number in versions.numbers():
        if number in known:
            continue
        folder = versions.path(number)
        try:
            tags = _tags(read_manifest(folder))
        except UserError as error:  # the other versions are added
            log.warning("version %d of %s is not added to the registry: %s", number, name, first_line(error))
            continue
        made = client.create_model_version(name, folder.absolute().as_uri(), tags=tags)
        known[number] = str(made.version)
    present = {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    pointers = versions.pointers()
    for pointer in POINTERS:
        wanted = known.get(pointers[pointer]) if pointer in pointers else None
        if wanted is None and pointer in present:
            client.delete_registered_model_alias(name, pointer)
        elif wanted is not None and present.get(pointer) != wanted:
            client.set_registered_model_alias(name, pointer, wanted)


def _tags(manifest: Manifest) -> dict[str, str]:
    """Return the tags of a version in the registry."""
    tags = {
        VERSION: str(manifest.version),
        "embfit.query_fingerprint": manifest.model.query,
        "embfit.documents": str(manifest.documents.count),
        "embfit.index": manifest.index.kind,
        "embfit.run": manifest.run,
    }
    metrics = manifest.quality.metrics if manifest.quality else {}
    return tags | {f"embfit.{metric.replace('@', '_at_')}": f"{value:.4f}" for metric, value in metrics.items()}
