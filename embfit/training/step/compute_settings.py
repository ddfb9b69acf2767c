"""How one step is computed: settings that can be read without Lightning."""

from __future__ import annotations

from dataclasses import dataclass

from embfit.model.precision import Precision


@dataclass(frozen=True)
class ComputeSettings:
    """How a step is computed. Dropout, precision and seed change what is learnt, the others its last digits at most.

    Args:
        token_budget: padded tokens in a micro-batch.
        memory_gb: for graphs that are kept; None is half of what is free when training starts. Changes no bit on a CPU.
        dropout: whether the encoder's dropout is on.
        precision: of the encoder's computation.
        seed: of order, drawing and dropout.
        gradient_checkpointing: layers keep their inputs alone, and compute the rest again.
    """

    token_budget: int
    memory_gb: float | None
    dropout: bool
    precision: Precision
    seed: int
    gradient_checkpointing: bool = False
