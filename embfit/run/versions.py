"""What a run's numbers may depend on besides its configuration: code, packages and machine."""

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
    """Return the versions under which a run is started, as `versions.json` has them.

    `embfit_git` is the commit of embfit's own code, None for a release. `directory_git` is that of the repository that
    the working directory is in, a user's own, None outside one. Both hold `commit`, and `clean`: whether nothing there
    differs from it.
    """
    return {
        "embfit": version.__version__,
        "embfit_git": _own_commit(Path(version.__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "overrides": list(overrides),
        "executable": sys.executable,
        "directory": str(Path.cwd()),  # that relative paths are read from
        "directory_git": _git_state(Path.cwd()),
        "packages": dict(_packages()),
    }


@functools.cache
def _packages() -> Mapping[str, str]:
    """Return the versions of all installed packages by name, sorted; read once, for that takes a tenth of a second."""
    packages = {found.metadata["Name"]: found.version for found in distributions()}
    return dict(sorted(packages.items(), key=lambda item: str(item[0]).lower()))


def _own_commit(package: Path) -> dict[str, Any] | None:
    """Return the commit of a checkout of embfit, or the one that pip installed it from."""
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None:  # not a user's repository around it
        return _git_state(package)
    with suppress(PackageNotFoundError, ValueError, KeyError):
        told = json.loads(distribution("embfit").read_text("direct_url.json") or "{}")
        return {"commit": told["vcs_info"]["commit_id"], "clean": True}
    return None


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and cleanliness of the repository that a folder is in, None outside one."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain")
    return None if commit is None else {"commit": commit, "clean": changes == ""}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git says in a folder, None where it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
