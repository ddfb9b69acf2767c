"""Finds the newest model of a finished fine-tuning on some documents."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from embfit.model.back_ends.static_int8 import holds_quantized
from embfit.model.folder import holds_cross_encoder
from embfit.records import Collection
from embfit.run.record import read_headline, read_state, run_folders


def newest_encoder(
    runs: Path, collection: Collection, wanted: Callable[[Path], bool] = lambda folder: True
) -> Path | None:
    """Return the folder of the newest encoder of a finished fine-tuning on the collection's documents; None if none is.

    Args:
        runs: the folder of the fine-tunings.
        collection: the collection of the documents.
        wanted: returns whether to accept an encoder's folder.
    """
    finished = [run / "model" for run in run_folders(runs) if read_state(run) == "done"]
    tuned = [
        model for model in finished if model.is_dir() and not holds_quantized(model)
    ]  # not the output of task=quantize
    models = [model for model in tuned if not holds_cross_encoder(model) and wanted(model)]
    newest_first = sorted(models, key=lambda folder: folder.stat().st_mtime, reverse=True)
    return next((folder for folder in newest_first if _corpus(folder.parent) == collection.corpus_digest), None)


def _corpus(run: Path) -> str | None:
    """Return the digest of a run's documents; None if its record does not have it."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        return read_headline(run).get("corpus_sha256")
    return None
