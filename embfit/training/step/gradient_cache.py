"""Encodes any number of micro-batches in a fixed memory, with the same gradients as without a cache.

The loss needs only the encoder's outputs. So the first micro-batches, as many as memory allows, keep their graph. The
others run without one, and run again with it once the gradient on their outputs is known (GradCache, Gao et al.
2021). If all graphs are kept, this is plain training; if none is, memory is constant. Backward passes run in one
order in either case, so on a CPU the memory does not change a single bit of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

import torch
from torch import Tensor

Input = TypeVar("Input")


class CachedEncoding(Generic[Input]):
    """One forward and one backward pass over micro-batches.

    Args:
        encode: returns the outputs of a micro-batch, [v, ...].
        seeded: returns the context in which a micro-batch's random numbers are drawn, by its number: they are the same
            each time it is entered.
    """

    def __init__(
        self, encode: Callable[[Input], Tensor], seeded: Callable[[int], AbstractContextManager[object]]
    ) -> None:
        self.encode = encode
        self.seeded = seeded
        self.outputs: list[Tensor | None] = []
        self.inputs: Sequence[Input] = ()

    def forward(self, inputs: Sequence[Input], keep: int) -> list[Tensor]:
        """Encode all micro-batches and return their outputs, detached.

        Args:
            inputs: the micro-batches.
            keep: how many of the first ones keep their graph.
        """
        self.inputs = inputs
        self.outputs = []
        detached = []
        for row, micro_batch in enumerate(inputs):
            with torch.set_grad_enabled(row < keep), self.seeded(row):
                output = self.encode(micro_batch)
            self.outputs.append(output if row < keep else None)
            detached.append(output.detach())
        return detached

    def backward(self, gradients: Sequence[Tensor]) -> None:
        """Add to the weights' gradients, from the loss's gradient on each micro-batch's outputs ([v, ...] each)."""
        for row, (micro_batch, gradient) in enumerate(zip(self.inputs, gradients, strict=True)):
            output = self.outputs[row]
            self.outputs[row] = None  # frees the graph as soon as it has been used
            if output is None:
                with torch.enable_grad(), self.seeded(row):
                    output = self.encode(micro_batch)
            torch.autograd.backward(output, gradient)
