"""Chooses the training defaults by cross-validation on training queries (`cross_validation.py`).

`dense` is as embfit ships: two mined negatives, three epochs, batch 64, rate 5e-5; every other setting changes what it
names. The table is the paired difference to the untrained model over the queries of all folds and seeds that were run.
What kinds of negatives are worth is asked in `negatives.py`, which shares these runs.

    python scripts/benchmarks/defaults.py medquad-small=DIR --folds 3 --queries 320 --documents 1200 --max-length 128
    python scripts/benchmarks/defaults.py scifact=DIR --settings "dense;dense, lr=1e-4" --folds 3 --seeds 0,1,2
    python scripts/benchmarks/defaults.py --table
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cross_validation import START, append, case_of, measure, parser, read, was_run

from embfit.evaluator.significance import bootstrap_interval
from embfit.loss import InfoNCE
from embfit.miner import Dense, NoNegatives
from embfit.report.wording import interval

DENSE = Dense(negatives=2)
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "none": {"miner": NoNegatives()},
    "none, lr=1e-4": {"miner": NoNegatives(), "training": {"lr": 1e-4}},
    "none, guide": {"miner": NoNegatives(), "training": {"guide": "base"}},
    "dense": {},
    "dense, lr=2e-5": {"training": {"lr": 2e-5}},
    "dense, lr=1e-4": {"training": {"lr": 1e-4}},
    "dense, epochs=1": {"training": {"epochs": 1}},
    "dense, epochs=1, lr=1e-4": {"training": {"epochs": 1, "lr": 1e-4}},
    "dense, epochs=6": {"training": {"epochs": 6}},
    "dense, batch_size=32": {"training": {"batch_size": 32}},
    "dense, batch_size=128": {"training": {"batch_size": 128}},
    "dense, dropout": {"training": {"dropout": True}},
    "dense, guide": {"training": {"guide": "base"}},
    "dense, temperature=0.02": {"loss": {"temperature": 0.02}},
    "dense, temperature=0.1": {"loss": {"temperature": 0.1}},
    "dense, symmetric": {"loss": {"symmetric": True}},
    "dense 1": {"miner": Dense(negatives=1)},
    "dense 4": {"miner": Dense(negatives=4)},
}


def main() -> None:
    """Run what is missing, then print the table."""
    arguments = parser(__doc__).parse_args()
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        settings = list(SETTINGS) if arguments.settings == "all" else arguments.settings.split(";")
        for collection_name, folder in (named.split("=", 1) for named in arguments.collections):
            for seed in map(int, arguments.seeds.split(",")):
                for fold in range(arguments.folds):
                    for setting in settings:
                        _run_once(out, arguments, collection_name, folder, setting, fold, seed)
    print(table(list(read(out))))


def _run_once(
    out: Path, arguments: argparse.Namespace, name: str, folder: str, setting: str, fold: int, seed: int
) -> None:
    """Train and measure one setting on one fold, and append the result, unless it is there."""
    case = case_of(arguments, name, setting, fold, seed)
    if was_run(out, case):
        return
    changes = SETTINGS[setting]
    miner = changes.get("miner", DENSE)
    seeded = miner if isinstance(miner, NoNegatives) else replace(miner, seed=seed)
    training = replace(START, seed=seed, **changes.get("training", {}))
    append(out, measure(case, folder, arguments, seeded, InfoNCE(**changes.get("loss", {})), training))


def table(results: list[Mapping[str, Any]]) -> str:
    """Return the results as Markdown: the mean paired difference over all runs' queries, by setting."""
    lines = [
        "| collection | setting | runs | base | tuned | difference (95 % interval) | CPU-minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for result in (one for one in results if one["setting"] in SETTINGS):
        key = (result["collection"], result["queries"], result["documents"], result["max_length"], result["setting"])
        groups.setdefault(key, []).append(result)
    for (name, queries, documents, length, setting), runs in groups.items():
        before = np.array([value for run in runs for value in run["base"].values()])
        after = np.array([value for run in runs for value in run["tuned"].values()])
        between = bootstrap_interval(after - before, 10_000, 0)
        minutes = np.mean([run["cpu_minutes"] for run in runs])
        size = f"{name}, {queries or 'all'} queries, {documents:,} documents, {length} tokens"
        lines.append(
            f"| {size} | {setting} | {len(runs)} | {before.mean():.4f} | {after.mean():.4f} "
            f"| {(after - before).mean():+.4f} ({interval(between)}) | {minutes:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
