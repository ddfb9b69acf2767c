"""The versions that a run's numbers may depend on besides its configuration: code, packages and machine."""

from __future__ import annotations

import functools
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any

from embfit import version


def versions(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the current versions, in the form of `versions.json`.

    `embfit_git` is the commit of embfit's code; None for a release. `directory_git` is that of the repository around
    the working directory, or None. Both hold `commit`, and `clean`: whether the working tree has no changes.
    """
    return {
        "embfit": version.__version__,
        "embfit_git": _own_commit(Path(version.__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "overrides": list(overrides),
        "executable": sys.executable,
        "directory": str(Path.cwd()),  # relative paths are read from here
        "directory_git": _git_state(Path.cwd()),
        "packages": dict(_packages()),
    }


@functools.cache
def _packages() -> Mapping[str, str]:
    """Return the versions of all installed packages by name, sorted; cached, since it takes a tenth of a second."""
    packages = {found.metadata["Name"]: found.version for found in distributions()}
    return dict(sorted(packages.items(), key=lambda item: str(item[0]).lower()))


def _own_commit(package: Path) -> dict[str, Any] | None:
    """Return the commit of embfit's checkout, or the one from which pip installed it."""
    if (
        _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None
    ):  # not of a user's repository around the package
        return _git_state(package)
    with suppress(PackageNotFoundError, ValueError, KeyError):
        told = json.loads(distribution("embfit").read_text("direct_url.json") or "{}")
        return {"commit": told["vcs_info"]["commit_id"], "clean": True}
    return None


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of the repository around a folder and whether it is clean; None outside a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain")
    return None if commit is None else {"commit": commit, "clean": changes == ""}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's output in a folder; None if git fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
