"""Progress of long work with rate and time left: a bar on a terminal, otherwise a plain line every few seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)
Item = TypeVar("Item")

LINE_SECONDS = 15.0  # seconds between two plain lines


class Advance(Protocol):
    """Reports that more work is done."""

    def __call__(self, amount: int = 1) -> None:
        """Add an amount of finished work."""


@contextmanager
def progress(
    label: str | None, total: int, unit: str, note: Callable[[], str] | None = None, completed: int = 0
) -> Iterator[Advance]:
    """Show progress while the block runs.

    Args:
        label: what is being done ("embedding documents"); None shows nothing.
        total: the amount of work.
        unit: the unit of the work, in the plural ("texts").
        note: returns a text to show beside the rate; called each time that the progress is shown.
        completed: work that was finished earlier; it counts as done and does not change the rate.
    """
    if label is None:
        yield _show_nothing
    elif sys.stderr.isatty():
        with _bar(unit) as bar:
            task = bar.add_task(label, total=total, completed=completed, rate="")
            yield _bar_advance(bar, task, note, completed)
    else:
        yield _line_advance(label, total, unit, note, completed)


def track(items: Iterable[Item], label: str, total: int, unit: str) -> Iterator[Item]:
    """Yield the items, showing progress as they are consumed."""
    with progress(label, total, unit) as advance:
        for item in items:
            yield item
            advance()


def _show_nothing(amount: int = 1) -> None:
    """Show nothing."""


def _bar(unit: str) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),  # a file's name may hold brackets
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _bar_advance(bar: Progress, task: TaskID, note: Callable[[], str] | None, completed: int) -> Advance:
    started = time.monotonic()
    done = completed

    def advance(amount: int = 1) -> None:
        nonlocal done
        done += amount
        rate = _per_second(done - completed, time.monotonic() - started)
        bar.update(task, completed=done, rate=", ".join(_rate_and_note(rate, note)))

    return advance


def _line_advance(label: str, total: int, unit: str, note: Callable[[], str] | None, completed: int) -> Advance:
    started = shown = time.monotonic()
    done = completed

    def advance(amount: int = 1) -> None:
        nonlocal done, shown
        done += amount
        now = time.monotonic()
        if now - shown >= LINE_SECONDS:
            shown = now
            spent = now - started
            since = done - completed
            left = f"{(total - done) * spent / since:.0f} s left" if since > 0 else "no estimate of the time left"
            speed = ", ".join(_rate_and_note(_per_second(since, spent), note))
            log.info("%s: %d of %d %s, %s, %s", label, done, total, unit, speed, left)

    return advance


def _rate_and_note(rate: str, note: Callable[[], str] | None) -> list[str]:
    """Return the rate and the note, without those that are empty."""
    return [part for part in (rate, note() if note else "") if part]


def _per_second(done: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    return f"{rate:.0f}/s" if rate >= 10 else f"{rate:.2g}/s"  # long steps are fractions
