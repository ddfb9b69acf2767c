"""The memory limit of this process on Linux: that of its container or cluster job, from its control groups."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Names(NamedTuple):
    """The file names of a control group, and the line of `memory.stat` that counts reclaimable memory."""

    limit: str
    used: str
    reclaimable: str


SECOND = Names("memory.max", "memory.current", "inactive_file")  # version 2 of the interface
FIRST = Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def bytes_left(root: Path = Path("/")) -> int:
    """Return the bytes that are left to this process by the limits of its control group and of the enclosing ones.

    Args:
        root: the root of the file system.
    """
    left = sys.maxsize
    with suppress(OSError):  # a system without control groups
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            mount = root / "sys/fs/cgroup"
            if not controllers:
                left = min(left, *_lefts(mount, path, SECOND))
            elif "memory" in controllers.split(","):
                left = min(left, *_lefts(mount / "memory", path, FIRST))
    return left


def _lefts(mount: Path, path: str, names: Names) -> list[int]:
    """Yield the bytes that a group, and each enclosing group, leaves; a container may see only some of them."""
    group = mount / path.lstrip("/")
    return [_left(folder, names) for folder in (group, *group.parents) if folder.is_relative_to(mount)]


def _left(group: Path, names: Names) -> int:
    with suppress(OSError, ValueError):  # the file is missing, or holds "max": no limit
        limit, used = (int((group / name).read_text()) for name in (names.limit, names.used))
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(facts.get(names.reclaimable, 0)))  # clean file cache
    return sys.maxsize
