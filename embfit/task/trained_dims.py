"""The dimensions to which a model's vectors may be cut: those of its Matryoshka training."""

from __future__ import annotations

from pathlib import Path

from embfit.errors import UserError
from embfit.loss.matryoshka import nested_dims
from embfit.run.record import read_record


def trained_dims(folder: Path, width: int, single: bool = True) -> list[int]:
    """Return the dimensions, ascending, that a fine-tuning trained a model for; empty if the model is not from a run.

    Args:
        folder: the model's folder, inside its run's folder.
        width: the number of dimensions of the full vectors.
        single: whether each text has one vector.
    """
    try:
        loss = read_record(folder.absolute().parent).config.get("loss") or {}
    except UserError:
        return []
    if "dims" not in loss:
        return []
    return sorted(loss["dims"] or nested_dims(width, single))
