"""What hard negatives are worth: sources, margins, blends, cross-encoders, distillation, topical batches, mining again.

Judged by cross-validation on training queries (`cross_validation.py`): no query of a fold shares a relevant document
with training. All settings train for as many epochs. The table has the paired difference to `none` over the queries of
all folds and seeds. Mining finds the corpus embedded: its minutes are those of queries, search, scores and choice.

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from comparison import Run, groups, over, size, values
from cross_validation import START, append, case_of, measure, parser, was_run
from measuring import mean_and_interval, read
from torch import nn

from embfit.loss import KL, Distillation, InfoNCE
from embfit.miner import BlendMiner, BM25Miner, CrossEncoderMiner, DenseMiner, NoNegatives, RandomMiner, ScoredMiner
from embfit.model.precision import Precision
from embfit.report.formatting import interval
from embfit.task.protocols import Miner

BASELINE = "none"
NEGATIVES = 2


@dataclass(frozen=True)
class Given:
    """What a run gives its miner: a seed, a cross-encoder and the precision of whatever computes."""

    seed: int
    teacher: str | None
    precision: Precision


@dataclass(frozen=True)
class Setting:
    """How a setting mines and trains.

    Args:
        miner: makes the miner.
        loss: makes the loss.
        training: changes of `cross_validation.START`.
        needs_teacher: whether it needs a cross-encoder.
    """

    miner: Callable[[Given], Miner]
    loss: Callable[[], nn.Module] = InfoNCE
    training: Mapping[str, Any] = field(default_factory=dict)
    needs_teacher: bool = False


def _dense(given: Given) -> DenseMiner:
    return DenseMiner(NEGATIVES, given.seed)


def _blend(given: Given) -> BlendMiner:
    sources = {"dense": DenseMiner(NEGATIVES), "bm25": BM25Miner(NEGATIVES)}
    return BlendMiner(sources, {"dense": 0.75, "bm25": 0.25}, NEGATIVES, seed=given.seed)


def _focused(given: Given) -> BlendMiner:
    sources = {"dense": DenseMiner(NEGATIVES), "bm25": BM25Miner(NEGATIVES), "cross-encoder": _reranked(given)}
    shares = {"dense": 0.7, "bm25": 0.2, "cross-encoder": 0.1}
    return BlendMiner(sources, shares, NEGATIVES, focus="cross-encoder", seed=given.seed)


def _reranked(given: Given) -> CrossEncoderMiner:
    return CrossEncoderMiner(NEGATIVES, given.seed, model=given.teacher, precision=given.precision)


def _taught(given: Given) -> ScoredMiner:
    return ScoredMiner(_dense(given), model=given.teacher, precision=given.precision)


def _distilled() -> nn.Module:
    return Distillation(InfoNCE(), KL())


SETTINGS: Mapping[str, Setting] = {
    BASELINE: Setting(lambda given: NoNegatives()),
    "random": Setting(lambda given: RandomMiner(NEGATIVES, given.seed)),
    "bm25": Setting(lambda given: BM25Miner(NEGATIVES, given.seed)),
    "dense, no margin": Setting(lambda given: DenseMiner(NEGATIVES, given.seed, relative_margin=None)),
    "dense": Setting(_dense),
    "dense, weighted sampling": Setting(lambda given: DenseMiner(NEGATIVES, given.seed, sampling="weighted")),
    "blend": Setting(_blend),
    "blend, cross-encoder for the most mistaken": Setting(_focused, needs_teacher=True),
    "cross-encoder": Setting(_reranked, needs_teacher=True),
    "distillation": Setting(_taught, _distilled, needs_teacher=True),
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
    teachers = arguments.cross_encoder if setting.needs_teacher else None
    case = case_of(arguments, collection, name, fold, seed, teachers)
    if not was_run(out, case):
        teacher = teachers and teachers.format(collection=collection, fold=fold)
        miner = setting.miner(Given(seed, teacher, arguments.precision))
        training = replace(START, seed=seed, **setting.training)
        append(out, measure(case, folder, arguments, miner, setting.loss(), training))


def table(results: list[Run]) -> str:
    """Return as Markdown, by setting, the mean paired difference to `none` over the runs of the same fold and seed."""
    lines = [
        "| collection | setting | runs | nDCG@10 | difference to none (95 % interval) | by run, least to most "
        "| mining, CPU-minutes | training, CPU-minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    baselines = [run for run in results if run["setting"] == BASELINE]
    for (*_, setting, teacher), found in groups(results, SETTINGS).items():
        compared = over(found, baselines)
        if not compared:
            continue
        runs, differences = zip(*compared, strict=True)
        by_run = [float(one.mean()) for one in differences]
        against = [mean_and_interval(np.concatenate(differences)), interval((min(by_run), max(by_run)))]
        named = f"{setting}, {teacher}" if teacher else setting
        cells = [size(runs[0]), named, str(len(runs)), f"{values(runs, 'tuned').mean():.4f}"]
        cells += ["", ""] if setting == BASELINE else against
        mining = max(run["mining_cpu_minutes"] for run in runs)  # later runs find what the first has mined
        training = np.mean([run["cpu_minutes"] for run in runs])
        lines.append(f"| {' | '.join(cells)} | {mining:.1f} | {training:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
