"""Arguments of the commands that write a page to decide on."""

from __future__ import annotations

import argparse
from pathlib import Path

from embfit.errors import ConfigError


def add_page_arguments(parser: argparse.ArgumentParser, cards: str, default: int, out: Path) -> None:
    """Add the arguments that say what a page has, and where it is written.

    Args:
        parser: of the command.
        cards: what the cards are.
        default: how many there are, at most.
        out: the page's file.
    """
    parser.add_argument("--cards", type=whole, default=default, metavar="N", help=f"{cards} (default: {default})")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the cards and their order (default: 0)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"the file to write (default: {out})")


def check_place(file: Path) -> None:
    """Check that there is a folder for a file, before any work.

    Raises:
        ConfigError: there is none.
    """
    if not file.parent.is_dir():
        raise ConfigError(f"--out={file}: {file.parent} is not a folder; make it, or name a file elsewhere")
    if file.is_dir():
        raise ConfigError(f"--out={file} is a folder; name a file in it")


def whole(text: str) -> int:
    """Return a whole number above 0 that was typed.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
