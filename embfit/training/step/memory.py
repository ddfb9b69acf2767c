"""How much memory is free, and how much of it a graph takes."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from embfit.training.step.memory_limit import bytes_left

GIGABYTE = 1e9
LONGER = 1.25  # inputs longer by this factor are measured again


class GraphSize:
    """The bytes that autograd saved for the backward pass, valid after `measure_graph` has ended."""

    def __init__(self) -> None:
        self.bytes = 0


@contextmanager
def measure_graph(module: nn.Module) -> Iterator[GraphSize]:
    """Count what autograd saves in this context: each storage once, without the module's own weights."""
    size = GraphSize()
    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}  # also where there is no memory
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield size
    size.bytes = sum(storage.nbytes() for storage in saved.values())  # freed weights of shards have none


class GraphLimit:
    """Decides how many micro-batches may keep their graph.

    Args:
        allowed: how many bytes graphs may take.
    """

    def __init__(self, allowed: float) -> None:
        self.allowed = allowed
        self._per_token = 0.0  # bytes that each padded token keeps, measured on the longest inputs so far
        self._longest = 0

    def kept(self, areas: Sequence[int], longest: int, measure: Callable[[], int]) -> int:
        """Return how many of some micro-batches, longest inputs first, may keep their graph.

        Args:
            areas: the padded tokens of each micro-batch.
            longest: how many tokens the longest input has.
            measure: returns the bytes of the first one's graph. It is asked when the inputs are clearly longer than any
                measured before: plain attention keeps more for each token of a longer text.
        """
        if longest > LONGER * self._longest:
            self._per_token, self._longest = max(self._per_token, measure() / areas[0]), longest
        return int((np.cumsum(areas) * self._per_token <= self.allowed).sum())


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device; on the CPU, what the system and the limits on the process leave."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch's cache reuses it
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return min(int(psutil.virtual_memory().available), bytes_left())


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that this process has used so far."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes
