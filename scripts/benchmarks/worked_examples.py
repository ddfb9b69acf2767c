"""Writes docs/examples/: `task=assess`, a fine-tuning and the full comparison of a collection, with their pictures.

Every figure is read from the runs' `report.json`, every picture from their `report.html`. A run that is finished is not
made again, so an interrupted script continues where it stopped. Overrides after `--` go to every run.

    python scripts/benchmarks/worked_examples.py --data ../data --collections scifact,medquad-small
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from measuring import run_once

from embfit.report.formatting import duration, interval, metric_label, plain, probability, signed

SYSTEMS = (
    "task.systems=[base,tuned,bm25,hybrid,weighted]",
    "evaluator.systems.hybrid.of=[tuned,bm25]",
    "evaluator.systems.weighted.of=[tuned,bm25]",
)
PAGE_STYLE = Path(__file__).parents[2] / "embfit" / "report" / "page.css"
PICTURES = {  # of a run: file name → how the caption begins
    "finetune": {
        "gains": "nDCG@10 by query",
        "depth": "nDCG by depth",
        "before": "base:",
        "after": "tuned:",
        "loss": "Loss",
    }
}


@dataclass(frozen=True)
class Run:
    """A run of the example: its name, which is its folder's, and what to type for it."""

    name: str
    overrides: tuple[str, ...]


def main() -> None:
    """Make the runs and write a page for each collection."""
    arguments = _arguments()
    for name in arguments.collections.split(","):
        folder = arguments.out / name
        runs = _runs(arguments.data / name, folder, arguments.overrides)
        for run in runs:
            run_once(folder / run.name, run.overrides)
        page = arguments.docs / f"{name}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("\n".join(_page(name, folder, runs, page.parent)) + "\n", encoding="utf-8")
        print(f"wrote {page}")


def _runs(data: Path, folder: Path, overrides: Sequence[str]) -> list[Run]:
    """Return what to run: production is a split of its own where the collection has one."""
    common = ("data=beir", f"data.path={data}", *overrides)
    compared = ("task=evaluate", *SYSTEMS, f"tuned={folder / 'finetune' / 'model'}")
    runs = [
        Run("assess", ("task=assess", *common)),
        Run("finetune", ("task=finetune", *common)),
        Run("compare", (*compared, *common)),
    ]
    if (data / "qrels" / "production.tsv").is_file():
        runs.append(Run("production", (*compared, "evaluator.split=production", *common)))
    return runs


def _page(name: str, folder: Path, runs: Sequence[Run], docs: Path) -> Iterator[str]:
    """Yield the lines of the page."""
    reports = {run.name: _report(folder / run.name) for run in runs}
    yield f"# {name}: assessed, fine-tuned, compared\n"
    yield "Made by `scripts/benchmarks/worked_examples.py`; every figure is from the runs' `report.json`.\n"
    yield from _machine(folder / "finetune")
    yield "## Before training: is it worth it?\n"
    yield from _typed(runs[0])
    yield from _assessment(reports["assess"])
    yield "## The fine-tuning\n"
    yield from _typed(runs[1])
    yield from _systems(reports["finetune"])
    yield from _training(reports["finetune"])
    yield from _pictures(name, folder, docs)
    yield "## Every system on the same queries\n"
    yield "Hybrid and weighted are made of tuned and BM25 here.\n"
    yield from _typed(runs[2])
    yield from _systems(reports["compare"])
    if "production" in reports:
        yield "## On production's queries\n"
        yield from _typed(runs[3])
        yield from _systems(reports["production"])


def _machine(folder: Path) -> Iterator[str]:
    versions = json.loads((folder / "versions.json").read_text(encoding="utf-8"))
    packages = ", ".join(f"{name} {versions['packages'][name]}" for name in ("torch", "transformers"))
    system = versions["platform"].partition("-")[0]
    yield f"embfit {versions['embfit']}, Python {versions['python']}, {packages}; {system}.\n"


def _typed(run: Run) -> Iterator[str]:
    shown = [re.sub(r"=/\S*/", "=…/", override) for override in run.overrides]
    yield f"```\npython -m embfit {shlex.join(shown)}\n```\n"


def _assessment(report: Mapping[str, Any]) -> Iterator[str]:
    found = report["assessment"]
    yield f"**{found['recommendation']}**\n"
    yield from (f"- {reason}" for reason in found["reasons"])
    yield ""
    yield from _systems(report)
    if found["cost"]["estimates"]:
        yield "| documents | embed | train | embed again | in all |\n|---|---|---|---|---|"
        for one in found["cost"]["estimates"]:
            times = " | ".join(duration(one[name]) for name in ("embed_before", "train", "embed_after", "total"))
            yield f"| {one['documents']:,} | {times} |"
        yield ""


def _systems(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of systems and the one of differences in the first metric."""
    systems = report["systems"]
    metrics = list(next(iter(systems.values()))["metrics"])
    first = next(iter(systems.values()))
    yield f"{first['split']}: {first['queries']} queries\n"
    yield f"| | {' | '.join(map(metric_label, metrics))} |\n|---{'|---' * len(metrics)}|"
    for name, system in systems.items():
        yield f"| {name} | {' | '.join(plain(system['metrics'][metric]) for metric in metrics)} |"
    yield ""
    yield f"| {metric_label(metrics[0])} | queries | difference | 95 % interval | p | better, same, worse |"
    yield "|---|---|---|---|---|---|"
    for found in report["comparisons"]:
        if found["metric"] == metrics[0]:
            p = found["p"] if found["p_holm"] is None else found["p_holm"]
            counts = f"{found['wins']}, {found['ties']}, {found['losses']}"
            ends = interval(found["ci95"], 3)
            yield (
                f"| {found['b']} − {found['a']} | {found['subset']}, {found['queries']} | "
                f"{signed(found['difference'])} | {ends} | {probability(p)} | {counts} |"
            )
    yield ""


def _training(report: Mapping[str, Any]) -> Iterator[str]:
    training = report["training"]
    yield (
        f"{training['steps']} steps, {training['epochs']:.2g} epochs, {training['pairs_per_second']:.1f} pairs per "
        f"second, {training['peak_memory_gb']:.2f} GB at most; the weights of step {training['kept_step']} were kept. "
        f"The whole run took {duration(sum(report['timings'].values()))}.\n"
    )


def _pictures(name: str, folder: Path, docs: Path) -> Iterator[str]:
    """Take the page's drawings out of it, in the colours of its light form, and yield links to them."""
    for run, wanted in PICTURES.items():
        text = (folder / run / "report.html").read_text(encoding="utf-8")
        figures = re.findall(r"<figcaption>(.*?)</figcaption>\s*(<svg.*?</svg>)", text, re.DOTALL)
        for file, beginning in wanted.items():
            caption, svg = next((found for found in figures if found[0].startswith(beginning)), ("", ""))
            if svg:
                path = docs / f"{name}-{file}.svg"
                path.write_text(_alone(svg), encoding="utf-8")
                yield f"![{unescape(caption)}]({path.name})\n\n*{unescape(caption)}*\n"


def _alone(svg: str) -> str:
    """Return a drawing as a file of its own: the page's variables become colours, on the page's paper."""
    colors = dict(re.findall(r"(--[\w-]+): (#\w+);", PAGE_STYLE.read_text(encoding="utf-8").split("@media")[0]))
    svg = re.sub(r"var\((--[\w-]+)\)", lambda found: colors[found[1]], svg)
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    opening = f'<svg {spaces} style="background: {colors["--paper"]}" font-family="sans-serif" '
    alone = svg.replace("<svg ", opening, 1) + "\n"
    ElementTree.fromstring(alone)  # as a file it must be XML, which it need not be within a page
    return alone


def _report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="the folder that has the collections, in BEIR's layout"
    )
    parser.add_argument("--collections", default="scifact,medquad-small")
    parser.add_argument("--out", type=Path, default=Path("outputs/examples"), help="for the runs")
    parser.add_argument("--docs", type=Path, default=Path("docs/examples"), help="for the pages")
    parser.add_argument("overrides", nargs="*", help="of every run, after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()
