"""What hard negatives are worth: sources, margins, blends, cross-encoders, distillation, topical batches, mining again.

Judged by cross-validation on training queries (`cross_validation.py`): no query of a fold shares a relevant document
with training. All settings train for as many epochs. The table has the paired difference to `none` over the queries of
all folds and seeds.

    python scripts/benchmarks/negatives.py scifact=DIR medquad-small=DIR --folds 3 --seeds 0,1,2
    python scripts/benchmarks/negatives.py medquad-small=DIR --settings "none;dense" --queries 320 --max-length 128
    python scripts/benchmarks/negatives.py --table

Settings with a cross-encoder are left out, and named, without one. It must not know the fold that it is judged by, and
teach no query that it was trained on, so each fold needs its own, from `cross_validation.py`'s folders:

    python -m embfit model=cross-encoder data=beir data.path=folds/scifact-0 data.dev_share=0 data.test_share=0 \\
        evaluator.split=fold miner.negatives=8 training.folds=2 run.dir=rankers/scifact-0
    python scripts/benchmarks/negatives.py scifact=DIR --cross-encoder "rankers/{collection}-{fold}/model"
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from cross_validation import START, append, case_of, measure, parser, read, was_run
from torch import nn

from embfit.evaluator.significance import bootstrap_interval
from embfit.loss import KL, InfoNCE
from embfit.loss import Blend as BlendOfLosses
from embfit.miner import BM25, Blend, CrossEncoder, Dense, NoNegatives, Random, Taught
from embfit.report.wording import interval, signed
from embfit.task.parts import Miner

BASELINE = "none"
NEGATIVES = 2


@dataclass(frozen=True)
class Setting:
    """How a setting mines and trains.

    Args:
        miner: makes the miner, given a seed and a cross-encoder.
        loss: makes the loss.
        training: changes of `defaults.START`.
        needs_teacher: whether it needs a cross-encoder.
    """

    miner: Callable[[int, str | None], Miner]
    loss: Callable[[], nn.Module] = InfoNCE
    training: Mapping[str, Any] = field(default_factory=dict)
    needs_teacher: bool = False


def _dense(seed: int, teacher: str | None) -> Dense:
    return Dense(NEGATIVES, seed)


def _blend(seed: int, teacher: str | None) -> Blend:
    return Blend(
        {"dense": Dense(NEGATIVES), "bm25": BM25(NEGATIVES)}, {"dense": 0.75, "bm25": 0.25}, NEGATIVES, seed=seed
    )


def _focused(seed: int, teacher: str | None) -> Blend:
    sources = {"dense": Dense(NEGATIVES), "bm25": BM25(NEGATIVES), "cross-encoder": _reranked(seed, teacher)}
    shares = {"dense": 0.7, "bm25": 0.2, "cross-encoder": 0.1}
    return Blend(sources, shares, NEGATIVES, focus="cross-encoder", seed=seed)


def _reranked(seed: int, teacher: str | None) -> CrossEncoder:
    return CrossEncoder(NEGATIVES, seed, model=teacher)


def _distilled() -> nn.Module:
    return BlendOfLosses(InfoNCE(), KL())


SETTINGS: Mapping[str, Setting] = {
    BASELINE: Setting(lambda seed, teacher: NoNegatives()),
    "random": Setting(lambda seed, teacher: Random(NEGATIVES, seed)),
    "bm25": Setting(lambda seed, teacher: BM25(NEGATIVES, seed)),
    "dense, no margin": Setting(lambda seed, teacher: Dense(NEGATIVES, seed, relative_margin=None)),
    "dense": Setting(_dense),
    "dense, weighted sampling": Setting(lambda seed, teacher: Dense(NEGATIVES, seed, sampling="weighted")),
    "blend": Setting(_blend),
    "blend, cross-encoder for the most mistaken": Setting(_focused, needs_teacher=True),
    "cross-encoder": Setting(_reranked, needs_teacher=True),
    "distillation": Setting(
        lambda seed, teacher: Taught(Dense(NEGATIVES, seed), model=teacher), _distilled, needs_teacher=True
    ),
    "dense, topical batches": Setting(_dense, training={"batching": "topical"}),
    "dense, mined again each epoch": Setting(_dense, training={"remine_every": 1}),
}


def main() -> None:
    """Run what is missing, then print the table."""
    options = parser(__doc__)
    options.add_argument("--cross-encoder", help="folder or name; {collection} and {fold} are filled in")
    arguments = options.parse_args()
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    names = list(SETTINGS) if arguments.settings == "all" else arguments.settings.split(";")
    left_out = [name for name in names if SETTINGS[name].needs_teacher and not arguments.cross_encoder]
    if left_out and not arguments.table:
        print(f"left out, for want of --cross-encoder: {'; '.join(left_out)}")
    for collection, folder in () if arguments.table else (named.split("=", 1) for named in arguments.collections):
        for seed in map(int, arguments.seeds.split(",")):
            for fold in range(arguments.folds):
                for name in names:
                    if name not in left_out:
                        _run_once(out, arguments, collection, folder, name, fold, seed)
    print(table(list(read(out))))


def _run_once(
    out: Path, arguments: argparse.Namespace, collection: str, folder: str, name: str, fold: int, seed: int
) -> None:
    """Train and measure one setting on one fold, and append the result, unless it is there."""
    setting = SETTINGS[name]
    teacher = arguments.cross_encoder and arguments.cross_encoder.format(collection=collection, fold=fold)
    case = case_of(arguments, collection, name, fold, seed, teacher if setting.needs_teacher else None)
    if not was_run(out, case):
        training = replace(START, seed=seed, **setting.training)
        append(out, measure(case, folder, arguments, setting.miner(seed, teacher), setting.loss(), training))


def table(results: list[Mapping[str, Any]]) -> str:
    """Return as Markdown, by setting, the mean paired difference to `none` over the runs of the same fold and seed."""
    lines = [
        "| collection | setting | runs | nDCG@10 | difference to none (95 % interval) | by run, least to most "
        "| mining, CPU-minutes | training, CPU-minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    baselines = {_place(result): result["tuned"] for result in results if result["setting"] == BASELINE}
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for result in (one for one in results if one["setting"] in SETTINGS):
        groups[(*_place(result)[2:], result["setting"])].append(result)
    for (name, queries, documents, length, setting), runs in groups.items():
        compared = [run for run in runs if _place(run) in baselines]
        after = np.array([value for run in compared for value in run["tuned"].values()])
        before = np.array([baselines[_place(run)][query] for run in compared for query in run["tuned"]])
        if not len(after):
            continue
        between = bootstrap_interval(after - before, 10_000, 0)
        by_run = [
            float(np.mean([run["tuned"][query] - value for query, value in baselines[_place(run)].items()]))
            for run in compared
        ]
        mining = max(run["mining_cpu_minutes"] for run in runs)  # later runs find what the first has mined
        training = np.mean([run["cpu_minutes"] for run in runs])
        size = f"{name}, {queries or 'all'} queries, {documents:,} documents, {length} tokens"
        difference = f"{signed((after - before).mean())} ({interval(between)})"
        against = ["", ""] if setting == BASELINE else [difference, interval((min(by_run), max(by_run)))]
        cells = [size, setting, str(len(compared)), f"{after.mean():.4f}", *against]
        lines.append(f"| {' | '.join(cells)} | {mining:.1f} | {training:.1f} |")
    return "\n".join(lines)


def _place(result: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a run shares with the one that it is compared with."""
    return tuple(result[name] for name in ("fold", "seed", "collection", "queries", "documents", "max_length"))


if __name__ == "__main__":
    main()
