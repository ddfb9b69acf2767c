"""How much memory there is, and how much of it a graph takes."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

GIGABYTE = 1e9


class GraphSize:
    """Bytes that autograd saved for the backward pass, once `measure_graph` has ended."""

    def __init__(self) -> None:
        self.bytes = 0


@contextmanager
def measure_graph(module: nn.Module) -> Iterator[GraphSize]:
    """Count what autograd saves in this context: each storage once, the module's own weights not at all."""
    size = GraphSize()
    seen = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            size.bytes += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        yield size


def free_bytes(device: torch.device) -> int:
    """Return the memory that a device can still give: on the CPU what the system or the container's limit leaves."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_system_bytes(), _container_bytes())


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that this process has used so far."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes


def _system_bytes() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 8_000_000_000  # a system that does not tell: assume a small machine


def _container_bytes() -> int:
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        return max(0, int(text) - int(used.read_text()))
    return sys.maxsize
