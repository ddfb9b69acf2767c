"""`embfit store`: what the store keeps, and removing what is old, too large or unfinished."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from embfit.command.removal import MEGABYTE, megabytes, positive, remove_listed
from embfit.compose.command_line import Parser
from embfit.compose.explain import aligned
from embfit.errors import ConfigError, UserError
from embfit.store import CACHE_TAG, DAY, StoredEntry, remove_entry, stored_entries

STORE = Path("outputs/store")
PAID = ("generation", "served")  # kinds of results that a server was paid for, which are never removed


def run(arguments: Sequence[str]) -> None:
    """Run `embfit store ARGUMENTS`.

    Raises:
        ConfigError: the arguments are wrong.
        UserError: a folder is not a store.
    """
    given = _parser().parse_args(list(arguments))
    given.do(given)


def _parser() -> Parser:
    parser = Parser(
        prog="embfit store", description="List and remove results in the store. All of them can be computed again."
    )
    verbs = parser.add_subparsers(required=True, metavar="list|prune")
    listing = verbs.add_parser("list", help="list the kinds of results, with their number and size")
    listing.add_argument("folder", nargs="?", type=Path, default=STORE, help=f"the store (default: {STORE})")
    listing.set_defaults(do=_list)
    prune = verbs.add_parser(
        "prune", help="remove results by age or total size, or unfinished ones; without --yes, only list them"
    )
    prune.add_argument("folder", nargs="?", type=Path, default=STORE, help=f"the store (default: {STORE})")
    prune.add_argument(
        "--older-than", type=positive, metavar="DAYS", help="remove results that were not used for so many days"
    )
    prune.add_argument(
        "--max-size",
        type=positive,
        metavar="GB",
        help="remove the results not used for longest, until the rest has this size",
    )
    prune.add_argument("--unfinished", action="store_true", help="remove what failed or killed processes left")
    prune.add_argument("--yes", action="store_true", help="remove the listed results")
    prune.set_defaults(do=_prune)
    return parser


def _entries(folder: Path) -> list[StoredEntry]:
    if not (folder / CACHE_TAG).is_file():  # never remove from a folder that only looks like one
        raise UserError(f"{folder} is not a store: it has no {CACHE_TAG}; name the folder that store.dir names")
    return stored_entries(folder)


def _list(given: argparse.Namespace) -> None:
    kinds: dict[str, list[StoredEntry]] = defaultdict(list)
    for entry in _entries(given.folder):
        kinds[entry.path.parent.name].append(entry)
    rows = [(kind, f"{len(found):,}", megabytes(sum(one.bytes for one in found))) for kind, found in kinds.items()]
    print("\n".join(aligned([("kind", "results", "size"), *sorted(rows)])))


def _prune(given: argparse.Namespace) -> None:
    """List, and with `--yes` remove, the results that match any condition given."""
    if given.older_than is None and given.max_size is None and not given.unfinished:
        raise ConfigError("embfit store prune: say what: --older-than DAYS, --max-size GB, --unfinished, or several")
    entries = [entry for entry in _entries(given.folder) if entry.path.parent.name not in PAID]
    chosen = chosen_entries(entries, time.time(), given.older_than, given.max_size, given.unfinished)
    rows = [
        (str(one.path), megabytes(one.bytes), f"used {time.strftime('%F', time.localtime(one.used))}") for one in chosen
    ]
    size = sum(one.bytes for one in chosen)
    remove_listed("results", rows, size, [partial(remove_entry, one) for one in chosen] if given.yes else None)


def chosen_entries(
    entries: Sequence[StoredEntry], now: float, days: float | None, gigabytes: float | None, unfinished: bool
) -> list[StoredEntry]:
    """Return the entries to remove.

    Args:
        entries: all of them, those that were not used for longest first.
        now: seconds since 1970.
        days: remove what was not used for so long.
        gigabytes: remove what was not used for longest, until the others have this size.
        unfinished: remove what is not whole.
    """
    chosen = [
        entry
        for entry in entries
        if (unfinished and not entry.finished) or (days is not None and now - entry.used >= days * DAY)
    ]
    if gigabytes is not None:
        taken = set(chosen)
        rest = [entry for entry in entries if entry not in taken]
        size = sum(entry.bytes for entry in rest)
        for entry in rest:
            if size <= gigabytes * 1000 * MEGABYTE:
                break
            chosen.append(entry)
            size -= entry.bytes
    return chosen
