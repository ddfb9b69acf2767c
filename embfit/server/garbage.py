"""Keeps full garbage collections short while requests are answered.

A full collection of Python's cycle collector visits every container object and stops all threads of Python. With a
model and its libraries in memory this takes a third of a second, every few seconds under load. These objects live as
long as the version that answers, so they are frozen: later collections skip them.
"""

from __future__ import annotations

import gc


def freeze_objects() -> None:
    """Collect all garbage, also among frozen objects, and freeze the remaining objects until the next call.

    Call it when a server is ready, and when a version has been closed: its reference cycles would otherwise stay in
    memory.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
