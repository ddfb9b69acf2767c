"""Keeps garbage collections short while requests are answered.

A full collection visits every container object and stops all threads of Python meanwhile. Most of these objects belong
to the model and the libraries, and live as long as the version that answers. So they are frozen: collections skip them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_objects() -> Iterator[None]:
    """Freeze the objects that exist when the block begins, and those of each call of `freeze_again`."""
    freeze_again()
    try:
        yield
    finally:
        gc.unfreeze()


def freeze_again() -> None:
    """Collect all garbage, also among frozen objects, and freeze the remaining objects.

    It is called when a version has been closed, whose reference cycles would otherwise stay in memory.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
