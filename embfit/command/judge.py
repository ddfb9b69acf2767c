"""`embfit judge`: a page on which a person judges first results, and the judgements that come of it as a qrels file."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embfit.atomic_files import write_text
from embfit.command.page_arguments import add_page_arguments, check_place, whole
from embfit.compose.command_line import Parser, typed
from embfit.errors import UserError

if TYPE_CHECKING:
    from embfit.review.judgement_pool import JudgementPool
    from embfit.review.run_data import RunData

PAGE = Path("judge.html")
QRELS = Path("judged.qrels")
SHOWN = 10  # conflicts that are told one by one
MEASURED = ("data", "evaluator", "experiment", "model")  # groups that say what is measured
COMPARED = ("base", "tuned", "bm25", "hybrid")  # systems of a fine-tuning that an evaluation has, too


def run(arguments: Sequence[str]) -> None:
    """Run `embfit judge ARGUMENTS`.

    Raises:
        ConfigError: the arguments are wrong.
        UserError: there is nothing to judge, or a file cannot be read.
        OSError: the page or the judgements cannot be written.
    """
    given = _parser().parse_args(list(arguments))
    out = given.out or (QRELS if given.read else PAGE)
    check_place(out)
    from embfit.review.judgement_pool import pool_results  # datasets takes a second to import
    from embfit.review.run_data import read_run_data

    data = read_run_data(given.run)
    pool = pool_results(data, given.split, given.depth, given.systems)
    print("\n".join(_merged(data, pool, given, out) if given.read else _written(data, pool, given, out)))


def _parser() -> Parser:
    parser = Parser(
        prog="embfit judge",
        description="Write a page on which a person judges the unjudged first results of a run. It "
        "needs no network and does not say which system found a result: open it in a browser, judge, and export "
        "judgements.jsonl. With --read, write the judgements, old and new, as a qrels file for task.qrels=FILE.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run that has measured systems")
    add_page_arguments(parser, "most results on the page; the results of a query stay together", 200, PAGE)
    parser.add_argument("--split", metavar="SPLIT", help="split whose queries are judged (default: evaluator.split)")
    parser.add_argument(
        "--depth", type=whole, default=10, metavar="N", help="number of first results of each system (default: 10)"
    )
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="systems to pool (default: all)")
    parser.add_argument(
        "--highest",
        type=int,
        choices=(1, 2, 3),
        default=2,
        help="the highest grade; 1 asks only for relevant or not (default: 2)",
    )
    parser.add_argument(
        "--read", type=Path, nargs="+", metavar="FILE", help=f"write the judgements of these files (default: {QRELS})"
    )
    return parser


def _written(data: RunData, pool: JudgementPool, given: argparse.Namespace, out: Path) -> Iterator[str]:
    """Write the page; yield what is said of it."""
    from embfit.review.judging_page import judging_page

    pairs = pool.draw(given.cards, given.seed)
    if not pairs:
        raise UserError(
            f"the first {given.depth} results of {', '.join(pool.systems)} are judged, all of them, so there is "
            "nothing to do; --depth and --systems choose others"
        )
    read = f"embfit judge {shlex.quote(str(given.run))} --read judgements.jsonl"
    write_text(out, judging_page(pool, pairs, given.highest, data.store, read).html())
    queries, unjudged = len({query for query, _ in pairs}), pool.unjudged
    yield f"unjudged   {sum(map(len, unjudged.values())):,} among the first {given.depth} of {', '.join(pool.systems)}"
    yield f"cards      {len(pairs):,}, the whole of {queries:,} of {len(unjudged):,} queries"
    known = max((grade for grades in pool.judged.values() for grade in grades.values()), default=given.highest)
    if 1 <= known < given.highest:
        yield f"grades     those of the data end at {known}; --highest {known} asks for no higher ones"
    yield f"page       {out}: open it in a browser, judge, and press e to export judgements.jsonl"
    yield f"use it     {read}"


def _merged(data: RunData, pool: JudgementPool, given: argparse.Namespace, out: Path) -> Iterator[str]:
    """Write the judgements; yield what is said of them."""
    from embfit.data.trec import write_qrels
    from embfit.review.new_judgements import merge_judgements

    merged = merge_judgements(pool, given.read)
    write_qrels(out, merged.qrels)
    grades = ", ".join(f"{count:,} of grade {grade}" for grade, count in merged.added.items())
    yield f"new        {sum(merged.added.values()):,}{f': {grades}' if grades else ''}"
    others = {"judged likewise before": merged.repeated, "skipped": merged.skipped, "not of the run": merged.unknown}
    if said := ", ".join(f"{count:,} {words}" for words, count in others.items() if count):
        yield f"besides    {said}"
    for conflict in merged.conflicts[:SHOWN]:
        yield f"conflict   {conflict}; the first counts"
    if len(merged.conflicts) > SHOWN:
        yield f"           and {len(merged.conflicts) - SHOWN:,} more conflicts"
    judged = sum(map(len, merged.qrels.values()))
    yield f"all        {judged:,} judgements of {len(merged.qrels):,} queries: {out}"
    again = ["python -m embfit task=evaluate", *_measured_likewise(data, pool)]
    yield f"use it     {' '.join([*again, typed('task.qrels', str(out))])}"


def _measured_likewise(data: RunData, pool: JudgementPool) -> Iterator[str]:
    """Yield overrides, as they are typed in a shell, by which an evaluation measures on a split what a run measured."""
    from embfit.model.folder import holds_cross_encoder

    is_other_split = pool.split != str(data.values["evaluator"]["split"])
    for word in data.overrides:
        key = word.lstrip("+~").partition("=")[0]
        if is_other_split and key in ("evaluator.split", "evaluator.production"):
            continue
        if re.split(r"[.@]", key)[0] in MEASURED or key == "task.systems":
            yield shlex.quote(word)
    if is_other_split:
        yield typed("evaluator.split", pool.split)
    tuned = data.folder / "model"
    if tuned.is_dir() and not holds_cross_encoder(tuned):
        yield typed("tuned", str(tuned))
        pooled = {"base", "tuned", *(name.removesuffix(f"-{pool.split}") for name in pool.systems)}
        yield shlex.quote(f"task.systems=[{', '.join(name for name in COMPARED if name in pooled)}]")
