"""Removing what is listed, after it was shown: what `embfit runs clean` and `embfit store prune` have in common."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

from embfit.compose.explain import aligned

MEGABYTE = 1e6


def remove_listed(
    what: str, rows: Sequence[Sequence[str]], size: int, removals: Sequence[Callable[[], bool]] | None
) -> None:
    """Print what is chosen, and remove it or say how.

    Args:
        what: the plural of what is removed.
        rows: one for each, as columns.
        size: bytes of all together.
        removals: remove one each and return whether it is gone, which what is at work is not; None only lists.
    """
    if rows:
        print("\n".join(aligned([tuple(row) for row in rows])))
    told = f"{len(rows):,} {what}, {megabytes(size)}"
    if removals is None:
        print(f"{told}; nothing was removed: --yes removes {'it' if len(rows) == 1 else 'them'}" if rows else told)
        return
    gone = sum(remove() for remove in removals)
    left = f"; {len(rows) - gone:,} in use were left" if gone < len(rows) else ""
    print(f"{told}; removed {gone:,}{left}")


def megabytes(size: int) -> str:
    """Write a number of bytes as people read it."""
    return f"{size / MEGABYTE:,.1f} MB"


def positive(text: str) -> float:
    """Return a number above 0 that was typed.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number
