"""`embfit runs`: what was run, where its values came from, and what differs between two runs."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from embfit.compose.command_line import Parser
from embfit.compose.explain import aligned, value_table
from embfit.errors import UserError
from embfit.run.record import RunRecord, find_runs, read_record

ERROR_WIDTH = 60  # of a row's error; the run's log has all of it


def run(arguments: Sequence[str]) -> None:
    """Run `embfit runs ARGUMENTS`.

    Raises:
        ConfigError: wrong arguments.
        UserError: a folder is not a run's.
    """
    given = _parser().parse_args(list(arguments))
    given.do(given)


def _parser() -> Parser:
    parser = Parser(prog="embfit runs", description="What was run, and what differs.")
    verbs = parser.add_subparsers(required=True, metavar="list|explain|diff")
    listing = verbs.add_parser("list", help="show runs with their results, the latest last")
    listing.add_argument("folder", nargs="?", type=Path, default=Path("outputs"), help="default: outputs")
    listing.set_defaults(do=_list)
    explain = verbs.add_parser("explain", help="show where the values of a run were written, as --explain does")
    explain.add_argument("run", type=Path, help="a run's folder")
    explain.add_argument("key", nargs="?", default="", help="only what is at a key")
    explain.set_defaults(do=_explain)
    diff = verbs.add_parser("diff", help="show what differs in configuration, data, versions and results")
    diff.add_argument("a", type=Path, help="a run's folder")
    diff.add_argument("b", type=Path, help="another's")
    diff.set_defaults(do=_diff)
    return parser


def _list(given: argparse.Namespace) -> None:
    runs = find_runs(given.folder)
    if not runs:
        raise UserError(f"there are no runs under {given.folder}")
    print("\n".join(aligned([_row(found) for found in runs])))


def _row(found: RunRecord) -> tuple[str, ...]:
    """Say of a run where, what, when, with which result, how it ended unless well, and what was asked."""
    told = []
    if found.measured:
        metric, values = found.measured
        told.append(f"{metric} " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
    if found.state not in ("done", "running"):
        error = textwrap.shorten(str(found.status.get("error")), ERROR_WIDTH, placeholder=" …")
        told.append(f"{found.state} at {found.status.get('stage')}: {error}")
    asked = " ".join(found.versions.get("overrides", ()))
    return str(found.dir), found.task, str(found.status.get("started") or ""), "; ".join(told) or found.state, asked


def _explain(given: argparse.Namespace) -> None:
    print(value_table(read_record(given.run).provenance, given.key))


def _diff(given: argparse.Namespace) -> None:
    from embfit.command.run_difference import differences  # brings torch, which the other verbs need not wait for

    print("\n\n".join(differences(read_record(given.a), read_record(given.b))))
