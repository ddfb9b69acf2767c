"""Evaluation of several Matryoshka dimensions: embfit's one embedding pass against sentence-transformers' evaluators.

sentence-transformers evaluates dimensions one after the other (`SequentialEvaluator` of
`InformationRetrievalEvaluator`s with `truncate_dim`), each of which embeds the corpus again; embfit embeds it once and
slices. Both load the same folder, in float32, and run by turns in one process, without anything kept between runs.
nDCG@10 must be the same.

    python scripts/benchmarks/matryoshka_evaluation.py --data DIR --model FOLDER --dims 64 128 256 384 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.evaluation import InformationRetrievalEvaluator, SequentialEvaluator

from embfit.data import Beir
from embfit.evaluator import Retrieval
from embfit.evaluator.metrics import answerable
from embfit.evaluator.systems import evaluate_encoder
from embfit.model import Pretrained
from embfit.records import Collection
from embfit.store import Store

METRIC = "ndcg@10"
AGREE = 5e-4  # ties and the last digit of a float may differ, and no more


def main() -> None:
    """Run both by turns, hold their nDCG@10 to each other, and print the times."""
    arguments = _arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    collection = Beir(path=arguments.data).load(Store(enabled=False))
    ours: list[float] = []
    theirs: list[float] = []
    for repeat in range(arguments.repeats):
        seconds, found = _embfit(collection, arguments)
        ours.append(seconds)
        seconds, expected = _sentence_transformers(collection, arguments)
        theirs.append(seconds)
        for dim in arguments.dims:
            print(
                f"run {repeat}, {dim} dims: embfit {found[dim]:.5f}, sentence-transformers {expected[dim]:.5f}",
                flush=True,
            )
            if abs(found[dim] - expected[dim]) > AGREE:
                raise SystemExit(f"nDCG@10 at {dim} dims differs by more than {AGREE}")
    line = {
        "data": collection.name,
        "split": arguments.split,
        "documents": len(collection.corpus),
        "dims": arguments.dims,
        "threads": torch.get_num_threads(),
        "embfit_seconds": ours,
        "sentence_transformers_seconds": theirs,
        "ratio_of_medians": statistics.median(theirs) / statistics.median(ours),
    }
    print(json.dumps(line))
    if arguments.out:
        with Path(arguments.out).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder in the BEIR layout whose judgements are 0 or 1")
    parser.add_argument("--model", required=True, help="a folder that both load")
    parser.add_argument("--split", default="test")
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128, 256, 384])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; all cores by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=32, help="of sentence-transformers")
    parser.add_argument("--out", help="file to which the line is added, as JSON")
    return parser.parse_args()


def _embfit(collection: Collection, arguments: argparse.Namespace) -> tuple[float, dict[int, float]]:
    model = Pretrained(arguments.model, precision="fp32")
    encoder = model.load(arguments.device)
    evaluator = Retrieval(split=arguments.split, metrics=[METRIC], dims=arguments.dims, near_copy=None)
    started = time.perf_counter()
    found = evaluate_encoder("model", encoder, evaluator.context(collection, Store(enabled=False), model))
    seconds = time.perf_counter() - started
    return seconds, {dim: cut.metrics[METRIC] for dim, cut in found.dims.items()}


def _sentence_transformers(collection: Collection, arguments: argparse.Namespace) -> tuple[float, dict[int, float]]:
    model = SentenceTransformer(arguments.model, device=arguments.device)
    qrels = answerable(collection.qrels[arguments.split])
    rows = [collection.query_rows[query] for query in qrels]
    queries = dict(zip(qrels, collection.query_texts(rows), strict=True))
    corpus = dict(zip(collection.document_ids, collection.document_texts(), strict=True))
    relevant = {query: {one for one, grade in grades.items() if grade >= 1} for query, grades in qrels.items()}
    evaluators = [
        InformationRetrievalEvaluator(
            queries,
            corpus,
            relevant,
            ndcg_at_k=[10],
            truncate_dim=dim,
            name=str(dim),
            batch_size=arguments.batch_size,
            score_functions={"cosine": _cosine},
        )
        for dim in arguments.dims
    ]
    started = time.perf_counter()
    found = SequentialEvaluator(evaluators)(model)
    seconds = time.perf_counter() - started
    return seconds, {dim: float(found[f"{dim}_cosine_{METRIC}"]) for dim in arguments.dims}


def _cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(a, dim=-1) @ torch.nn.functional.normalize(b, dim=-1).T


if __name__ == "__main__":
    main()
