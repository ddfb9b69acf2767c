"""embfit's training beside sentence-transformers': pairs/s, CPU-seconds per pair, peak memory, nDCG@10.

    python scripts/benchmarks/training.py --plan                     # what each study runs, and how long that takes
    python scripts/benchmarks/training.py speed --data DIR           # a folder in the BEIR layout, such as medquad
    python scripts/benchmarks/training.py --table

Every run is a process of its own, so peak memory is its own. Runs of a study alternate, round by round; a run that is
in the result file is not run again. Systems get the same pairs (drawn by the round's number), batch size and epochs;
tokenising is part of the time. Where others share the machine, compare CPU-seconds: `--threads 1` and `taskset`. The
share of a core's peak is over what a large matrix product reaches in the system's own precision.

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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from measuring import mean_and_interval, read
from training_systems import (
    BF16,
    CACHED,
    DIMS,
    EMBFIT,
    FP32,
    PEERS,
    Case,
    computes_in_bf16,
    draw,
    held_out,
    matrix_peak,
    model_flops,
    train_embfit,
    train_peer,
)

EXPECTED = {EMBFIT: 12.0, FP32: 2.2, BF16: 3.7, CACHED: 2.0}  # pairs/s on two cores, for `--plan` alone


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
    print(table(list(read(out))))


def _run(out: Path, case: Case, round_: int, arguments: argparse.Namespace) -> None:
    """Measure a case in a process of its own, unless it has been, and append the result."""
    key = {
        **asdict(case),
        "round": round_,
        "threads": arguments.threads,
        "data": Path(arguments.data).resolve().name,
        "documents": arguments.documents if case.quality else None,
        "embfit_in_bf16": computes_in_bf16(EMBFIT),  # this machine's way, in which all models are evaluated
    }
    if any({name: done.get(name) for name in key} == key for done in read(out)):
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
    peak = matrix_peak(computes_in_bf16(case.system))
    train = train_embfit if case.system == EMBFIT else train_peer
    with tempfile.TemporaryDirectory() as folder:
        found = train(case, texts, Path(folder), arguments.seed)
        found["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        found["pairs_per_second"] = len(texts) / found["seconds"]
        found["cpu_seconds_per_pair"] = found["cpu_seconds"] / len(texts)
        found["share_of_peak"] = model_flops(case, texts) / found["cpu_seconds"] / peak
        found["peak_gflops_of_a_core"] = peak / 1e9
        if case.quality:
            found["ndcg@10"] = held_out(Path(folder) / "model", case, collection)
    return found


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
        "| study | system | threads | pairs | batch | queries | negatives | length | loss | rounds | pairs/s "
        "| CPU-s per pair | times the CPU of the first | peak GB | of a core's peak |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    shape = [name for name in Case.__dataclass_fields__ if name not in ("quality", "memory_gb")]
    for result in results:
        machine = (result["threads"], result["data"], result.get("documents"), result.get("embfit_in_bf16"))
        groups.setdefault((*(result[name] for name in shape), *machine), []).append(result)
    firsts: dict[tuple[Any, ...], float] = {}
    for group, runs in groups.items():
        study, system, pairs, batch, queries, negatives, length, loss, threads, *place = group
        cost = median(run["cpu_seconds_per_pair"] for run in runs)
        shared = (study, pairs, length if study != "length" else None, threads, *place)
        first = firsts.setdefault(shared, cost)
        lines.append(
            f"| {study} | {_named(system, place[-1])} | {threads} | {pairs or 'all'} | {batch} | {queries} "
            f"| {negatives} | {length} | {loss} | {len(runs)} "
            f"| {_spread(runs, 'pairs_per_second', 1)} | {_spread(runs, 'cpu_seconds_per_pair', 3)} "
            f"| {cost / first:.2f} | {_spread(runs, 'peak_memory_gb', 2)} "
            f"| {_spread(runs, 'share_of_peak', 2)} |"
        )
    return "\n".join([*lines, *_qualities([result for result in results if "ndcg@10" in result])])


def _qualities(results: list[Mapping[str, Any]]) -> Iterator[str]:
    """Yield nDCG@10 of each system by dimension, and by how much embfit's InfoNCE is below or above it."""
    import numpy as np

    if results:
        yield ""
        yield (
            "| data | documents | length | system | loss | dims | rounds | nDCG@10 (least to most) "
            "| over embfit's InfoNCE |"
        )
        yield "|---|---|---|---|---|---|---|---|---|"
    kinds: dict[tuple[Any, ...], dict[tuple[str, str], dict[int, Any]]] = {}
    for run in results:
        size = (run["data"], run["max_length"], run.get("documents"), run["pairs"], run["batch_size"], run["threads"])
        kind = kinds.setdefault((*size, run.get("embfit_in_bf16")), {})
        kind.setdefault((run["system"], run["loss"]), {})[run["round"]] = run["ndcg@10"]
    for (data, length, documents, *_, bf16), systems in kinds.items():
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
                    difference = mean_and_interval(np.array(shared))
                yield (
                    f"| {data} | {documents} | {length} | {_named(system, bf16)} | {loss} | {dim} | {len(rounds)} "
                    f"| {np.mean(means):.4f} ({min(means):.4f} to {max(means):.4f}) | {difference} |"
                )


def _named(system: str, bf16: bool | None) -> str:
    """Return a system's name with its precision, which peers' names have."""
    return system if system != EMBFIT or bf16 is None else f"{system} {'bf16' if bf16 else 'fp32'}"


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
