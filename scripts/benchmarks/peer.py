"""The quality of embfit's models beside sentence-transformers': same pairs, batch size, epochs and learning rates.

The learning rate is chosen for each system on the dev split (first seed), among its judged documents and a sample. The
test split is then searched in whole, once for each seed. Every model is measured by embfit's evaluator, from its saved
folder, which also shows that each tool's folder is read. A run that is in the result file is not run again.

    python scripts/benchmarks/peer.py scifact=DIR --epochs 1 --seeds 0,1,2 --max-length 256
    python scripts/benchmarks/peer.py --table

Systems: `sentence-transformers` (MultipleNegativesRankingLoss, no duplicates in a batch, bf16 unless --peer-fp32),
`embfit pairs` (the same pairs, no mined negatives), `embfit` (its default configuration, mined negatives included).
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from datasets import Dataset
from measuring import mean_and_interval, read
from minilm import MODEL
from peer_training import PeerTraining

from embfit.data import Beir
from embfit.evaluator import Retrieval
from embfit.evaluator.systems import evaluate_encoder
from embfit.evaluator.validation import validate
from embfit.loss import InfoNCE
from embfit.miner import DenseMiner, NoNegatives
from embfit.model import Encoder, save_encoder
from embfit.model.precision import uses_bf16
from embfit.records import Collection
from embfit.store import Store
from embfit.training import Training

PEER = "sentence-transformers"
SYSTEMS = (PEER, "embfit pairs", "embfit")
METRIC = "ndcg@10"


def main() -> None:
    """Run what is missing, then print the table."""
    arguments = _arguments()
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        for name, folder in (named.split("=", 1) for named in arguments.collections):
            for system in arguments.systems.split(","):
                _run_system(out, arguments, name, folder, system)
    print(table(list(read(out))))


def _run_system(out: Path, arguments: argparse.Namespace, name: str, folder: str, system: str) -> None:
    """Choose the learning rate on dev, then measure each seed on test."""
    store = Store(arguments.store)
    collection = Beir(path=folder).load(store)
    evaluator = Retrieval(bm25=False)
    case = {
        "collection": name,
        "system": system,
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "max_length": arguments.max_length,
        "precision": "bf16" if _computes_in_bf16(system, arguments) else "fp32",
    }
    first, *others = map(int, arguments.seeds.split(","))
    chosen = []
    for lr in map(float, arguments.lrs.split(",")):
        run = {**case, "lr": lr, "seed": first}
        dev = _found(out, run, "dev") or _choose(out, run, arguments, collection, evaluator, store)
        chosen.append((dev["metrics"][METRIC], lr))
    best = max(chosen)[1]
    for seed in (first, *others):
        run = {**case, "lr": best, "seed": seed}
        if not _found(out, run, "test"):
            _report(out, run, arguments, collection, evaluator, store)


def _computes_in_bf16(system: str, arguments: argparse.Namespace) -> bool:
    """Say whether a system trains in bf16: embfit does where the hardware multiplies it."""
    return not arguments.peer_fp32 if system == PEER else uses_bf16("auto", torch.device("cpu"))


def _choose(
    out: Path,
    run: Mapping[str, Any],
    arguments: argparse.Namespace,
    collection: Collection,
    evaluator: Retrieval,
    store: Store,
) -> dict[str, Any]:
    """Train and measure on dev, and append the result."""
    encoder = _trained(out, run, arguments, collection, store)
    found = validate(evaluator.judging, encoder, collection)
    return _append(out, {**run, "split": "dev", "metrics": dict(found.metrics)})


def _report(
    out: Path,
    run: Mapping[str, Any],
    arguments: argparse.Namespace,
    collection: Collection,
    evaluator: Retrieval,
    store: Store,
) -> None:
    """Train, unless the model is still there, measure it on test beside the base model, and append the result."""
    encoder = _trained(out, run, arguments, collection, store)
    context = evaluator.context(collection, store, MODEL)
    found = evaluate_encoder(str(run["system"]), encoder, context)
    untrained = replace(MODEL, max_length=arguments.max_length).load("cpu")
    base = evaluate_encoder("base", untrained, context)
    result = {
        **run,
        "split": "test",
        "metrics": dict(found.metrics),
        "base": base.per_query[METRIC],
        "tuned": found.per_query[METRIC],
        "unseen": list(found.subsets.get("unseen", ())),
    }
    _append(out, result)


def _append(out: Path, result: dict[str, Any]) -> dict[str, Any]:
    with out.open("a") as file:
        file.write(json.dumps(result) + "\n")
    named = {key: value for key, value in result.items() if key not in ("base", "tuned", "unseen", "metrics")}
    print(named, f"{result['metrics'][METRIC]:.4f}", flush=True)
    return result


def _trained(
    out: Path, run: Mapping[str, Any], arguments: argparse.Namespace, collection: Collection, store: Store
) -> Encoder:
    """Return the model of a run; trained now unless its folder is whole."""
    folder = out.parent / "models" / "-".join(str(value).replace(" ", "_") for value in run.values())
    whole = folder / "whole"
    if not whole.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        if run["system"] == PEER:
            _train_peer(run, folder, collection)
        else:
            _train_embfit(run, folder, collection, store)
        whole.touch()
    return replace(MODEL, path=str(folder), max_length=arguments.max_length).load("cpu")


def _train_embfit(run: Mapping[str, Any], folder: Path, collection: Collection, store: Store) -> None:
    encoder = replace(MODEL, max_length=run["max_length"]).load("cpu")
    miner = NoNegatives() if run["system"] == "embfit pairs" else DenseMiner()
    training_set = miner.mine(collection, encoder, store)
    training = Training(epochs=run["epochs"], batch_size=run["batch_size"], lr=run["lr"], seed=run["seed"])
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
    folder.mkdir(parents=True)
    # no validation during training: both systems train for the same number of epochs
    training.fit(encoder, InfoNCE(), training_set, None, trainer, store, folder)
    save_encoder(encoder, folder)


def _train_peer(run: Mapping[str, Any], folder: Path, collection: Collection) -> None:
    names = ("epochs", "batch_size", "max_length", "seed", "lr")
    training = PeerTraining(bf16=run["precision"] == "bf16", **{name: run[name] for name in names})
    queries, documents = list(collection.query_texts()), list(collection.document_texts())
    pairs = [
        {"anchor": queries[collection.query_rows[query]], "positive": documents[collection.document_rows[document]]}
        for query, grades in collection.qrels["train"].items()
        for document, grade in grades.items()
        if grade >= 1
    ]
    model = training.load()
    training.fit(model, Dataset.from_list(pairs), folder / "trainer")
    model.save(str(folder))


def table(results: list[Mapping[str, Any]]) -> str:
    """Return the test results as Markdown: mean over seeds, spread, and the paired difference to the base model."""
    lines = [
        "| collection | system | lr | seeds | nDCG@10 (min to max) | over base (95 % interval) "
        "| unseen documents: over base |",
        "|---|---|---|---|---|---|---|",
    ]
    between = ["", "| collection | difference | nDCG@10 (95 % interval) |", "|---|---|---|"]
    groups: dict[tuple[Any, ...], dict[tuple[str, str, float], list[Mapping[str, Any]]]] = {}
    for result in results:
        if result["split"] == "test":
            size = tuple(result[key] for key in ("collection", "epochs", "batch_size", "max_length"))
            system = (result["system"], result.get("precision", ""), result["lr"])
            groups.setdefault(size, {}).setdefault(system, []).append(result)
    for (name, epochs, batch_size, length), systems in groups.items():
        trained = f"{name}, {epochs} epochs of {batch_size}, {length} tokens"
        for system, runs in systems.items():
            means = [run["metrics"][METRIC] for run in runs]
            lines.append(
                f"| {trained} | {_named(system)} | {system[-1]:g} | {len(runs)} "
                f"| {np.mean(means):.4f} ({min(means):.4f} to {max(means):.4f}) | {_gain(runs, None)} "
                f"| {_gain(runs, 'unseen')} |"
            )
        ordered = sorted(systems, key=lambda system: SYSTEMS.index(system[0]))
        between += [
            f"| {trained} | {_named(b)} − {_named(a)} | {_difference(systems[a], systems[b])} |"
            for a, b in combinations(ordered, 2)
        ]
    return "\n".join([*lines, *between])


def _named(system: tuple[str, str, float]) -> str:
    name, precision, _ = system
    return f"{name}, {precision}" if precision else name  # an old run does not say


def _difference(a: list[Mapping[str, Any]], b: list[Mapping[str, Any]]) -> str:
    """Return the mean paired difference of two systems, each query's values averaged over seeds first."""
    before, after = (np.array([[*run["tuned"].values()] for run in runs]).mean(axis=0) for runs in (a, b))
    return mean_and_interval(after - before)


def _gain(runs: list[Mapping[str, Any]], subset: str | None) -> str:
    """Return the mean paired difference to the base, each query's values averaged over seeds first."""
    queries = runs[0][subset] if subset else list(runs[0]["base"])
    if not queries:
        return "–"
    gains = np.array([[run["tuned"][query] - run["base"][query] for query in queries] for run in runs]).mean(axis=0)
    return f"{mean_and_interval(gains)}, {len(queries)} queries"


def _found(out: Path, run: Mapping[str, Any], split: str) -> dict[str, Any] | None:
    case = {**run, "split": split}
    return next((done for done in read(out) if {key: done.get(key) for key in case} == case), None)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="*", help="NAME=BEIR_FOLDER")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--lrs", default="2e-5,5e-5,1e-4")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=256, help="tokens read of a text")
    parser.add_argument("--peer-fp32", action="store_true", help="its default precision, slower")
    parser.add_argument("--store", default="outputs/store")
    parser.add_argument("--out", default="outputs/benchmarks/peer.jsonl")
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    logging.basicConfig(level=logging.WARNING)
    return parser.parse_args()


if __name__ == "__main__":
    main()
