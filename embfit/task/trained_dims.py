"""The dimensions that a model's vectors may be cut to: those that its training had in its loss."""

from __future__ import annotations

from pathlib import Path

from embfit.errors import UserError
from embfit.loss.matryoshka import nested_dims
from embfit.run.record import read_record


def trained_dims(folder: Path, width: int, single: bool = True) -> list[int]:
    """Return the dimensions, ascending, that a fine-tuning trained a model for; none where it is no run's model.

    Args:
        folder: of the model; that of its run is the one above.
        width: dimensions of the model's whole vectors.
        single: whether each text has one vector.
    """
    try:
        loss = read_record(folder.absolute().parent).config.get("loss") or {}
    except UserError:
        return []
    if "dims" not in loss:
        return []
    return sorted(loss["dims"] or nested_dims(width, single))
