"""`embfit runs`: earlier runs, where their values came from, and what differs between two of them."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from embfit.command.removal import megabytes, positive, remove_listed
from embfit.compose.command_line import Parser
from embfit.compose.explain import aligned, value_table
from embfit.errors import ConfigError, UserError
from embfit.run.record import RunSummary, find_runs, read_record
from embfit.store import folder_bytes

ERROR_WIDTH = 60  # characters of an error in a row; the run's log has the whole text


def run(arguments: Sequence[str]) -> None:
    """Run `embfit runs ARGUMENTS`.

    Raises:
        ConfigError: the arguments are wrong.
        UserError: a folder is not a run folder.
    """
    given = _parser().parse_args(list(arguments))
    given.do(given)


def _parser() -> Parser:
    parser = Parser(prog="embfit runs", description="List, explain, compare and remove runs.")
    verbs = parser.add_subparsers(required=True, metavar="list|explain|diff|clean")
    listing = verbs.add_parser("list", help="list runs with their results, the latest last")
    listing.add_argument(
        "folder", nargs="?", type=Path, default=Path("outputs"), help="where to look (default: outputs)"
    )
    listing.set_defaults(do=_list)
    explain = verbs.add_parser("explain", help="show where the values of a run were written, as --explain does")
    explain.add_argument("run", type=Path, help="the run's folder")
    explain.add_argument("key", nargs="?", default="", help="show only the values at this key")
    explain.set_defaults(do=_explain)
    diff = verbs.add_parser(
        "diff", help="show what differs between two runs: configuration, data, versions and results"
    )
    diff.add_argument("a", type=Path, help="the first run's folder")
    diff.add_argument("b", type=Path, help="the second run's folder")
    diff.set_defaults(do=_diff)
    clean = verbs.add_parser("clean", help="remove old or unfinished runs; without --yes, only list them")
    clean.add_argument("folder", nargs="?", type=Path, default=Path("outputs"), help="where to look (default: outputs)")
    clean.add_argument(
        "--older-than", type=positive, metavar="DAYS", help="remove runs that began at least so many days ago"
    )
    clean.add_argument(
        "--unfinished", action="store_true", help="remove runs that failed, were interrupted or were killed"
    )
    clean.add_argument("--yes", action="store_true", help="remove the listed runs")
    clean.set_defaults(do=_clean)
    return parser


def _list(given: argparse.Namespace) -> None:
    runs = find_runs(given.folder)
    if not runs:
        raise UserError(f"there are no runs under {given.folder}; name the folder that they are in")
    print("\n".join(aligned([_row(found) for found in runs])))


def _clean(given: argparse.Namespace) -> None:
    """List, and with `--yes` remove, the runs that match every condition given."""
    if given.older_than is None and not given.unfinished:
        raise ConfigError("embfit runs clean: say which runs: --older-than DAYS, --unfinished, or both")
    chosen = [run for run in find_runs(given.folder) if _matches(run, given.older_than, given.unfinished)]
    rows = [(str(run.dir), run.state, str(run.status.get("started") or ""), folder_bytes(run.dir)) for run in chosen]
    remove_listed(
        "runs",
        [(path, megabytes(size), state, started) for path, state, started, size in rows],
        sum(size for *_, size in rows),
        [partial(_remove, run.dir) for run in chosen] if given.yes else None,
    )


def _matches(run: RunSummary, days: float | None, unfinished: bool) -> bool:
    started = run.status.get("started")
    if days is not None:
        if started is None:
            return False
        if datetime.now().astimezone() - datetime.fromisoformat(str(started)).astimezone() < timedelta(days=days):
            return False
    return not unfinished or run.state not in ("done", "pruned")


def _remove(folder: Path) -> bool:
    """Remove a run's folder, unless the run is at work; return whether it is gone."""
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            shutil.rmtree(folder)
    except Timeout:
        return False
    return True


def _row(found: RunSummary) -> tuple[str, ...]:
    """Return a run's folder, task, start, results or error, and overrides."""
    results = []
    if values := found.headline.get("systems"):
        named = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        results.append(f"{found.headline['metric']} {named}")
    if found.state not in ("done", "running"):
        error = textwrap.shorten(str(found.status.get("error")), ERROR_WIDTH, placeholder=" …")
        results.append(f"{found.state} at {found.status.get('stage')}: {error}")
    started = str(found.status.get("started") or "")
    return str(found.dir), found.task, started, "; ".join(results) or found.state, " ".join(found.overrides)


def _explain(given: argparse.Namespace) -> None:
    print(value_table(read_record(given.run).provenance, given.key))


def _diff(given: argparse.Namespace) -> None:
    from embfit.command.run_difference import differences  # imports torch, which the other verbs do not need

    print("\n\n".join(differences(read_record(given.a), read_record(given.b))))
