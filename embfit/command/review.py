"""`embfit review`: a page on which people keep or drop generated queries, and how far they and the filters agree."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from embfit.atomic_files import write_text
from embfit.command.page_arguments import add_page_arguments, check_place
from embfit.compose.command_line import Parser
from embfit.compose.explain import aligned
from embfit.errors import ConfigError, UserError

PAGE = Path("review.html")


def run(arguments: Sequence[str]) -> None:
    """Run `embfit review ARGUMENTS`.

    Raises:
        ConfigError: the arguments are wrong.
        UserError: there are no generated queries, or a file cannot be read.
        OSError: the page cannot be written.
    """
    given = _parser().parse_args(list(arguments))
    if given.read is not None and given.out is not None:
        raise ConfigError("--read writes no file; leave out --out")
    out = given.out or PAGE
    check_place(out)
    lines = _written(given.run, given.cards, given.seed, out) if given.read is None else _agreed(given.run, given.read)
    print("\n".join(lines))


def _parser() -> Parser:
    parser = Parser(
        prog="embfit review",
        description="Write a page on which a person keeps or drops generated queries. It needs no network: open it in "
        "a browser, decide, and export review.jsonl. To use it in the next run, set task.review=review.jsonl.",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="folder of a run with generated queries, or of its data set (RUN/dataset)"
    )
    add_page_arguments(parser, "queries on the page, half of them kept by the filters", 100, PAGE)
    parser.add_argument(
        "--read",
        type=Path,
        metavar="FILE",
        help="write no page; show how far FILE and the filters agree",
    )
    return parser


def _written(folder: Path, cards: int, seed: int, out: Path) -> Iterator[str]:
    """Write the page; yield what is said of it."""
    from embfit.review.query_cards import choose_rows, read_generated  # datasets takes a second to import
    from embfit.review.review_page import review_page

    table = read_generated(folder)
    chosen = choose_rows(table.rows, cards, seed)
    if not chosen:
        raise UserError(f"{folder} has no query to review: {_why_none(len(table.rows), table.lost)}")
    write_text(out, review_page(table, chosen).html())
    kept = sum(row.get("dropped_by") is None for row in chosen)
    yield f"cards      {len(chosen):,}: {kept:,} that the filters keep, {len(chosen) - kept:,} that they drop"
    if table.lost:
        yield f"left out   {table.lost:,}, whose documents are gone or have changed"
    yield f"page       {out}: open it in a browser, decide, and press e to export review.jsonl"
    yield f"agreement  embfit review {shlex.quote(str(folder))} --read review.jsonl"
    yield "use it     the command of the run again, with task.review=review.jsonl and another run.dir"


def _why_none(rows: int, lost: int) -> str:
    if rows:
        return "people have decided all of them"
    return f"the documents of all {lost:,} are gone or have changed" if lost else "none was written"


def _agreed(folder: Path, path: Path) -> Iterator[str]:
    """Yield how far the decisions of a file and the filters agree."""
    from embfit.review.agreement import agreement
    from embfit.review.decisions import read_decisions
    from embfit.review.query_cards import read_generated
    from embfit.review.review_page import filters_say

    decisions = read_decisions(path)
    rows = read_generated(folder).rows
    found = list(agreement(rows, decisions))
    known = {row["_id"] for row in rows}
    before = sum(bool(row.get("review")) and row["_id"] in decisions.answers for row in rows)
    decided = sum(one.decided for one in found)
    unknown = sum(query not in known for query in decisions.answers)
    yield f"decisions  {decided:,}, {decisions.skipped:,} skipped, {unknown:,} about queries that are not of the run"
    if before:
        yield (
            f"before     {before:,} were decided before this run, which used them; the run before says how far they "
            "and the filters agree"
        )
    if decisions.changed:
        yield f"changed    {decisions.changed:,} decided in two ways; the last line counts"
    if decided:
        agreed = sum(one.agreed for one in found)
        yield f"agreement  {agreed:,} of {decided:,}, {agreed / decided:.0%}\n"
        table = [("filters say", "decided", "you agree", "share", "95 % interval")]
        for one in found:
            low, high = one.interval
            counts = (f"{one.decided:,}", f"{one.agreed:,}", f"{one.agreed / one.decided:.0%}")
            table.append((filters_say(one.mark), *counts, f"{low:.0%} to {high:.0%}"))
        yield from aligned(table)
