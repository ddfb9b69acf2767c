"""Cross-validation on training queries, for `defaults.py` and `negatives.py`; no dev or test query is read.

Folds are cut by document: no query of a fold shares a relevant document (or a copy of one) with training, so memory of
a document cannot decide. Each line of the result file is one run; a run that is there is not run again.

As a script it writes training queries as BEIR folders, for whatever else is to be trained, such as a cross-encoder:
each fold as `OUT/NAME-FOLD`, with the queries that it trains on in `qrels/train.tsv` and its own in `qrels/fold.tsv`;
or, of a larger collection, queries whose relevant documents the first one does not have, as `OUT/NAME-elsewhere`.

    python scripts/benchmarks/cross_validation.py scifact=DIR --folds 3 --queries 320 --out folds
    python scripts/benchmarks/cross_validation.py medquad-small=DIR --elsewhere LARGER_DIR --queries 1500 --out folds
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from measuring import read
from minilm import MODEL
from torch import nn

from embfit.data import Beir
from embfit.data.held_out import hold_out, sample
from embfit.evaluator import Retrieval
from embfit.evaluator.systems import evaluate_encoder
from embfit.model.precision import uses_bf16
from embfit.records import Collection, Qrels
from embfit.store import Store
from embfit.task.protocols import Miner
from embfit.training import Training

FOLDS = 3
RUNS = "outputs/benchmarks/cross_validation.jsonl"
START = Training(epochs=3, batch_size=64, lr=5e-5, dropout=False)


def main() -> None:
    """Write the folds."""
    options = fold_options(__doc__, "folds")
    options.add_argument("--elsewhere", metavar="FOLDER", help="of a larger collection that contains the other")
    arguments = options.parse_args()
    out, store = Path(arguments.out), Store(arguments.store)
    for name, folder in (named.split("=", 1) for named in arguments.collections):
        collection = load(folder, store)
        if arguments.elsewhere:
            larger = load(arguments.elsewhere, store)
            found = elsewhere(larger, collection, arguments.queries, arguments.documents)
            write_beir(found, out / f"{name}-elsewhere")
            continue
        for fold in range(arguments.folds):
            found = fold_of(collection, fold, arguments.queries, arguments.documents)
            write_beir(found, out / f"{name}-{fold}")


def case_of(
    arguments: argparse.Namespace, name: str, setting: str, fold: int, seed: int, cross_encoder: str | None = None
) -> dict[str, Any]:
    """Return what identifies a run."""
    return {
        "collection": name,
        "setting": setting,
        "fold": fold,
        "seed": seed,
        "queries": arguments.queries,
        "documents": arguments.documents,
        "max_length": arguments.max_length,
        "bf16": uses_bf16(arguments.precision, torch.device("cpu")),
        "cross_encoder": cross_encoder,
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
    collection = fold_of(load(folder, store), int(case["fold"]), arguments.queries, arguments.documents)
    evaluator = Retrieval(split="fold", metrics=("ndcg@10",), depth=10, bm25=False)
    encoder = replace(MODEL, max_length=arguments.max_length, precision=arguments.precision).load("cpu")
    base = evaluate_encoder("base", encoder, evaluator.context(collection, store, MODEL))
    started = time.process_time()  # not the clock: runs share a machine
    examples = miner.mine(collection, encoder, store)
    mined = time.process_time()
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
    with TemporaryDirectory() as scratch:
        remine = partial(miner.mine, collection, store=Store(Path(scratch) / "store"))
        exact = replace(training, precision=arguments.precision)
        fit = exact.fit(encoder, loss, examples, None, trainer, store, Path(scratch), remine=remine)
    trained = time.process_time()
    tuned = evaluate_encoder("tuned", encoder, evaluator.context(collection, Store(enabled=False), MODEL))
    return {
        **case,
        "cpu_minutes": (trained - mined) / 60,
        "mining_cpu_minutes": (mined - started) / 60,
        "pairs_per_second": fit.pairs_per_second,
        "base": base.per_query["ndcg@10"],
        "tuned": tuned.per_query["ndcg@10"],
    }


def was_run(out: Path, case: Mapping[str, Any]) -> bool:
    """Whether a case is in the result file."""
    return any({key: done.get(key) for key in case} == case for done in read(out))


def append(out: Path, result: Mapping[str, Any]) -> None:
    """Add a run to the result file, and say what it found."""
    with out.open("a") as file:
        file.write(json.dumps(result) + "\n")
    before, after = (np.mean(list(result[system].values())) for system in ("base", "tuned"))
    case = (result[name] for name in ("collection", "setting", "fold", "seed"))
    print(*case, f"{before:.4f} → {after:.4f}", flush=True)


def load(folder: str, store: Store) -> Collection:
    """Return a collection with all its training queries in the split `train`."""
    return Beir(path=folder, dev_share=0, test_share=0).load(store)


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
    train: Qrels = {
        query: documents for part, held in parts.items() if part != str(fold) for query, documents in held.items()
    }
    if queries:
        train = sample(train, queries, seed=0)
    kept = _judged_and_others(judged, rows, documents)
    return replace(collection, corpus=collection.corpus.select(kept), qrels={"train": train, "fold": parts[str(fold)]})


def elsewhere(larger: Collection, smaller: Collection, queries: int, documents: int) -> Collection:
    """Return training queries of a larger collection, drawn, and documents that the smaller one does not have.

    Args:
        larger: has the smaller one's documents, and more.
        smaller: none of whose documents is relevant to a query that is returned, nor in its corpus.
        queries: how many, at most; 0 keeps all.
        documents: size of the corpus: every judged document, and drawn others up to it.
    """
    known = set(smaller.document_texts())
    texts = zip(larger.document_ids, larger.document_texts(), strict=True)
    rows = {name: larger.document_rows[name] for name, text in texts if text not in known}
    train: Qrels = {query: judged for query, judged in larger.qrels["train"].items() if judged.keys() <= rows.keys()}
    if queries:
        train = sample(train, queries, seed=0)
    kept = _judged_and_others(train, rows, documents)
    return replace(larger, corpus=larger.corpus.select(kept), qrels={"train": train})


def _judged_and_others(judged: Qrels, rows: Mapping[str, int], documents: int) -> list[int]:
    """Return the rows of every judged document and, up to a number, of others, drawn."""
    kept = {rows[document] for judgements in judged.values() for document in judgements}
    others = np.random.default_rng(0).permutation([row for row in rows.values() if row not in kept])
    return sorted({*kept, *others[: max(0, documents - len(kept))].tolist()})


def write_beir(collection: Collection, folder: Path) -> None:
    """Write a collection as a BEIR folder."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, table in (("corpus", collection.corpus), ("queries", collection.queries)):
        columns = [column for column in ("_id", "title", "text") if column in table.column_names]
        lines = (json.dumps(row) + "\n" for row in table.select_columns(columns))
        (folder / f"{name}.jsonl").write_text("".join(lines))
    for split, judged in collection.qrels.items():
        lines = (
            f"{query}\t{document}\t{grade}\n" for query, graded in judged.items() for document, grade in graded.items()
        )
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))


def fold_options(description: str | None, out: str) -> argparse.ArgumentParser:
    """Return the options that say of what the folds are cut."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("collections", nargs="*", help="NAME=BEIR_FOLDER")
    options.add_argument("--folds", type=int, default=1, help=f"how many of the {FOLDS} folds to run")
    options.add_argument("--queries", type=int, default=0, help="training queries; 0 for all")
    options.add_argument("--documents", type=int, default=1500, help="size of the corpus, at least the judged ones")
    options.add_argument("--store", default="outputs/store")
    options.add_argument("--out", default=out)
    logging.basicConfig(level=logging.WARNING)
    return options


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the options of a cross-validation."""
    options = fold_options(description, RUNS)
    options.add_argument("--settings", default="all", help="names, separated by semicolons; all by default")
    options.add_argument("--seeds", default="0", help="separated by commas")
    options.add_argument("--max-length", type=int, default=256, help="tokens read of a text")
    options.add_argument(
        "--precision", choices=("auto", "fp32", "bf16"), default="auto", help="auto is bf16 where the CPU multiplies it"
    )
    options.add_argument("--table", action="store_true", help="print what is there, run nothing")
    return options


if __name__ == "__main__":
    main()
