"""Chooses the training defaults by cross-validation on training queries (`cross_validation.py`).

`dense` is as embfit ships: two mined negatives, three epochs, batch 64, rate 5e-5; every other setting changes what it
names. The table has the paired difference to the untrained model over the queries of all folds and seeds that were run,
and the one to `dense` over those of the folds and seeds that both were run on. What kinds of negatives are worth is
asked in `negatives.py`, which shares these runs.

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
from comparison import Run, groups, over, size, values
from cross_validation import START, append, case_of, measure, parser, was_run
from measuring import mean_and_interval, read

from embfit.loss import InfoNCE
from embfit.miner import DenseMiner, NoNegatives

DENSE = DenseMiner(negatives=2)
BASELINE = "dense"
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
    "dense 1": {"miner": DenseMiner(negatives=1)},
    "dense 4": {"miner": DenseMiner(negatives=4)},
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


def table(results: list[Run]) -> str:
    """Return by setting, as Markdown, the mean paired differences to the untrained model and to `dense`."""
    lines = [
        "| collection | setting | runs | base | tuned | difference (95 % interval) | over dense (95 % interval) "
        "| CPU-minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    baselines = [run for run in results if run["setting"] == BASELINE]
    for (*_, setting, _), runs in groups(results, SETTINGS).items():
        before, after = values(runs, "base"), values(runs, "tuned")
        compared = [differences for _, differences in over(runs, baselines) if setting != BASELINE]
        cells = [size(runs[0]), setting, str(len(runs)), f"{before.mean():.4f}", f"{after.mean():.4f}"]
        cells += [mean_and_interval(after - before), mean_and_interval(np.concatenate(compared)) if compared else ""]
        lines.append(f"| {' | '.join(cells)} | {np.mean([run['cpu_minutes'] for run in runs]):.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
