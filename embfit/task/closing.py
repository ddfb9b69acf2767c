"""The last lines of a training: where things are, and what to do with them."""

from __future__ import annotations

from pathlib import Path


def where_things_are(folder: Path, use: str) -> str:
    """Name what a run folder has for a person.

    Args:
        folder: of the run.
        use: the overrides that make use of the model, which stands in the place of `{}`.
    """
    model = folder / "model"
    return "\n".join(
        [
            f"model    {model}",
            f"report   {folder / 'report.html'}",
            f"numbers  {folder / 'report.json'}",
            f"use it   python -m embfit {use.format(model)}",
        ]
    )
