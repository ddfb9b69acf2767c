"""Communication between the ranks of a training: sums, commands to gather, and whether to continue.

Lightning's own DDP is not used. Its reducer waits for one backward pass on every rank, but a step here has
one for each micro-batch, and ranks have different numbers of micro-batches: they would wait forever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor, distributed, nn

BUCKET = 2**26  # numbers summed at a time, so that the copy for it takes at most 256 MB


class Command(IntEnum):
    """Commands of the first rank to the others, which wait for it between two steps."""

    CONTINUE = 0
    STOP = 1
    GATHER_WEIGHTS = 2
    GATHER_STATE = 3  # of the optimizer


class Ranks:
    """The processes of one training; by default only this one, for which all exchanges do nothing.

    Args:
        rank: this process's number, which counts from 0.
        size: how many processes train together. If there are several, they have joined a process group, which sums on
            the weights' device.
        here: how many of them share this machine's memory.
        control: a process group on the CPU, through which ranks exchange flags; one may wait there for as long as a
            validation takes.
        sharded: whether each rank keeps a shard of every weight; one process alone keeps all weights.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        here: int = 1,
        control: distributed.ProcessGroup | None = None,
        sharded: bool = False,
    ) -> None:
        self.rank = rank
        self.size = size
        self.here = here
        self.control = control
        self.sharded = sharded and size > 1

    @property
    def leads(self) -> bool:
        """Whether this process validates, logs and writes."""
        return self.rank == 0

    def share(self, costs: Sequence[float] | np.ndarray) -> list[int]:
        """Return the numbers, ascending, of the pieces of work that are this rank's."""
        return deal(costs, self.size)[self.rank]

    def passes(self, costs: Sequence[float] | np.ndarray) -> int:
        """Return the largest number of pieces that a rank has, given the costs of all pieces."""
        return max(map(len, deal(costs, self.size)))

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over ranks."""
        if self.size > 1:
            distributed.all_reduce(tensor)

    def least(self, number: int) -> int:
        """Return the lowest of the ranks' numbers."""
        if self.size == 1:
            return number
        lowest = torch.tensor(number)
        distributed.all_reduce(lowest, op=distributed.ReduceOp.MIN, group=self.control)
        return int(lowest)

    def agree(self, stop: bool, gather: Callable[[Command], object] | None = None) -> bool:
        """Wait for all ranks; return whether the first one stops.

        Args:
            stop: whether this rank would stop; only the first rank's value counts.
            gather: is called on the other ranks for each command that the first rank `send`s before it comes here.
        """
        if self.size == 1:
            return stop
        received = self._broadcast(Command.STOP if stop else Command.CONTINUE)
        while gather is not None and received in (Command.GATHER_WEIGHTS, Command.GATHER_STATE):
            gather(received)
            received = self._broadcast(Command.CONTINUE)
        return received is Command.STOP

    def send(self, command: Command) -> None:
        """Send a command of the first rank, which calls this, to the others, which wait in `agree`."""
        self._broadcast(command)

    def _broadcast(self, command: Command) -> Command:
        """Return the first rank's command, on every rank."""
        number = torch.tensor([command], dtype=torch.uint8)
        distributed.broadcast(number, src=0, group=self.control)
        return Command(int(number))

    def reached(self, weights: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """Return the weights with a gradient on some rank. The others need None: AdamW also decays at gradient 0."""
        every = list(weights)
        found = torch.tensor([weight.grad is not None for weight in every], dtype=torch.uint8)
        if self.size > 1:
            distributed.all_reduce(found, op=distributed.ReduceOp.MAX, group=self.control)
        return [weight for weight, one in zip(every, found.tolist(), strict=True) if one]

    def sum_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """Replace the gradients of weights by their sums over ranks; a rank without one adds nothing."""
        if self.size == 1:
            return
        for bucket in _buckets(weights):
            flat = torch.cat([_gradient(weight).flatten() for weight in bucket])
            distributed.all_reduce(flat)
            for weight, part in zip(bucket, torch.split(flat, [weight.numel() for weight in bucket]), strict=True):
                _gradient(weight).copy_(part.view_as(weight))


def deal(costs: Sequence[float] | np.ndarray, ranks: int) -> list[list[int]]:
    """Divide pieces of work among ranks: the most costly first, each to the rank with the least so far (Graham 1969).

    Returns:
        For each rank the numbers of its pieces, ascending; empty where there are fewer pieces than ranks.
    """
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    load = np.zeros(ranks)
    for piece in np.argsort(-np.asarray(costs, float), kind="stable").tolist():
        rank = int(load.argmin())
        dealt[rank].append(piece)
        load[rank] += costs[piece]
    return [sorted(pieces) for pieces in dealt]


def _gradient(weight: nn.Parameter) -> Tensor:
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def _buckets(weights: Iterable[nn.Parameter]) -> Iterable[list[nn.Parameter]]:
    """Group weights of one type, in order, to at most `BUCKET` numbers; a larger weight is alone."""
    bucket: list[nn.Parameter] = []
    size = 0
    for weight in weights:
        if bucket and (size + weight.numel() > BUCKET or weight.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(weight)
        size += weight.numel()
    if bucket:
        yield bucket
