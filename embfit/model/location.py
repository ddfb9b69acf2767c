"""Finds a model's files: in an installed package, a folder, or the Hub (through its local cache)."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path

from embfit.errors import UserError

log = logging.getLogger(__name__)

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.safetensors",
)
OLD_WEIGHTS = "pytorch_model*.bin"  # only at the top: a Dense module may have no other form
OTHER_FORMATS = [
    "onnx/*",
    "openvino/*",
    "*.onnx",
    "*.ot",
    "*.h5",
    "*.msgpack",
    "*.gguf",
    "*.tflite",
    "*.mlmodel",
    "*.pt",
]

UNKNOWN = "{}: neither a folder here nor a model on the Hub (a private one needs `hf auth login`)"


def find_model(path: str, revision: str | None = None, packages: Mapping[str, str] | None = None) -> Path:
    """Return a local folder with a model's files.

    Args:
        path: a folder, or a name on the Hub.
        revision: branch, tag or commit on the Hub.
        packages: name on the Hub → importable Python package with its files, which is used if it is installed and no
            revision is requested.

    Raises:
        UserError: the folder is not a model, or the name is neither cached nor reachable.
    """
    return find_here(path, revision, packages) or _from_hub(path, revision)


def find_here(path: str, revision: str | None = None, packages: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder of a path or of an installed package; None if the model must come from the Hub.

    Raises:
        UserError: the folder is not a model, or does not exist and its name cannot be one on the Hub.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise UserError(f"{path}: the folder has no config.json, so it is not a transformers model")
        return folder
    package = None if revision is not None else (packages or {}).get(path)
    if package is not None and (found := _packaged(package)) is not None:
        return found
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise UserError(f"{path}: there is no such folder (a name on the Hub has the form owner/name)")
    return None


def in_cache(name: str, revision: str | None = None, file: str = "config.json") -> bool:
    """Return whether the Hub's local cache has a file of a model.

    Raises:
        UserError: no model on the Hub can have this name.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, file, revision=revision), str)
    except HFValidationError as error:
        raise UserError(UNKNOWN.format(name)) from error


def find_base(folder: Path, base: str, revision: str | None) -> Path:
    """Return a local folder with the weights that an adapter's folder names.

    Raises:
        UserError: they cannot be found.
    """
    try:
        return find_model(base, revision)
    except UserError as error:
        raise UserError(
            f"{folder}: the base that its adapter_config.json names cannot be found ({error}); "
            "a model saved with model.lora.merged=true needs none"
        ) from error


def check_digest(folder: Path, sha256: str) -> None:
    """Check a model's weights against their published digest.

    Raises:
        UserError: the file is missing, or its digest differs.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise UserError(
            f"model.sha256 is set, but {folder} has no model.safetensors to compare it with; set model.sha256=null"
        )
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise UserError(
            f"{weights}: sha256 is {found}, expected {sha256}\n"
            "This choice of model was written for other weights: model=custom model.path=FOLDER_OR_NAME takes any."
        )


def _packaged(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # found, not imported: the package's code is not needed
    if spec is None or not spec.submodule_search_locations:
        return None
    configs = sorted(Path(spec.submodule_search_locations[0]).glob("*/config.json"))
    if not configs:
        raise UserError(f"model.packages: the installed package {package} has no model folder; set model.packages=null")
    return configs[0].parent


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(snapshot_download(name, revision=revision, ignore_patterns=[*OTHER_FORMATS, OLD_WEIGHTS]))
        if not any(
            (folder / weights).is_file() for weights in WEIGHTS
        ):  # models that were published before safetensors
            folder = Path(snapshot_download(name, revision=revision, ignore_patterns=OTHER_FORMATS))
    except GatedRepoError as error:
        raise UserError(f"{name}: the Hub asks for access to this model; log in with `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name}: the Hub has no revision {revision} of it") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(UNKNOWN.format(name)) from error
    except (OSError, HfHubHTTPError, RuntimeError) as error:
        raise UserError(
            f"{name} is not on this machine, and the Hub cannot be reached ({type(error).__name__}); run once with a "
            "network, or name a folder in its place"
        ) from error
    log.info("%s comes from %s", name, folder)
    return folder
