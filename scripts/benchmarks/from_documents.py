"""What a model learns from queries that were generated, on a collection whose training labels are hidden from it.

Each row is a command line of its own, for each seed. Its figures go to `OUT/rows/ROW-SEED.json` when it has ended, and
what is there is not run again; a row that was interrupted resumes. Figures are nDCG@10 on the test queries, all of them
and those none of whose documents is relevant to a training query (`unseen`); fused ones are the reciprocal ranks of the
model and BM25, added up. A row that ends in "then labels" trains the model of the row that is named before on labels,
too, so that row comes first. Nothing is chosen here: the rows are fixed, and test is measured once for each.

    python scripts/benchmarks/from_documents.py DIR --label Claim --llm smollm2=FILE.gguf --llm gemma=FILE.gguf
    python scripts/benchmarks/from_documents.py DIR --label Claim --llm smollm2=FILE.gguf --rows "trained all smollm2"
    python scripts/benchmarks/from_documents.py DIR --table
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import mean_and_interval

from embfit.atomic_files import write_text
from embfit.data.qrels import read_qrels
from embfit.data.trec import read_run
from embfit.evaluator.fusion import reciprocal_ranks
from embfit.evaluator.metrics import per_query
from embfit.records import Qrels

METRIC = "ndcg@10"
HIDDEN = "task.labels=false"
PAIRS = (50, 200, None)  # that a writer is trained on; None for all
TOPICAL = ["training.batching=topical", "training.lr=1e-4"]
TAUGHT = [  # by the base model and BM25 together
    *TOPICAL, "miner=hybrid", "miner.miner.negatives=8", "loss=distill", "loss.teacher.teacher_temperature=1.5",
]  # fmt: skip
RANKER = [  # by a cross-encoder that was trained on the same queries, alone; or beside the two
    *TOPICAL, "miner=dense", "miner.negatives=8", "loss=distill", "teacher=cross-encoder",
]  # fmt: skip
BOTH = [*TAUGHT, "teacher=cross-encoder"]
LEXICAL = [*TOPICAL, "loss.lexical=1"]  # for what the fused columns measure
RUNS, SEED = "{runs}", "{seed}"  # in a row that begins with the model of another, which comes first
K = 60  # of reciprocal ranks


def main() -> None:
    """Run what is missing, then print the table."""
    arguments = parser().parse_intermixed_args()
    out = Path(arguments.out)
    if not arguments.table:
        keep_settings(out, arguments)
        planned = dict(rows(arguments))
        wanted = list(planned) if arguments.rows is None else arguments.rows.split(";")
        if unknown := [name for name in wanted if name not in planned]:
            sys.exit(f"no row {unknown[0]!r}; there are: {'; '.join(planned)}")
        for seed in map(int, arguments.seeds.split(",")):
            for name in wanted:
                run_once(out, Path(arguments.data), name, planned[name], seed, arguments.overrides)
    print(table(out))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("data", help="a folder in the BEIR layout with train and test")
    found.add_argument(
        "--llm", action="append", default=[], metavar="NAME=PATH", help="a language model; may be repeated"
    )
    found.add_argument("--label", default="Query", help="what the collection's queries are: Claim, Question")
    found.add_argument("--style", default="claim", help="the style that local models are asked for")
    found.add_argument("--queries", type=int, default=3, help="of each document, by every generator")
    found.add_argument("--seeds", default="0,1,2")
    found.add_argument("--rows", help="names of rows, with ; between them; all by default")
    found.add_argument("--out", default="outputs/from-documents")
    found.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    found.add_argument("overrides", nargs="*", help="of every run, such as generator.documents.limit=500")
    return found


def rows(arguments: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows' names and command lines."""
    queries = f"generator.queries={arguments.queries}"
    yield "base", ["task=evaluate", "task.systems=[base,bm25]"]
    yield "labels", []
    yield "extractive", ["generator=extractive", queries, HIDDEN]
    yield "extractive, topical", ["generator=extractive", queries, HIDDEN, *TOPICAL]
    yield "extractive, hybrid", ["generator=extractive", queries, HIDDEN, *TAUGHT]
    yield "extractive, labels", ["generator=extractive", queries]
    models = dict(named.split("=", 1) for named in arguments.llm)
    for model, path in models.items():
        local = ["generator=local", f"generator.model={path}", queries, *_styles(arguments.style)]
        yield f"local {model}", [*local, HIDDEN]
        yield f"local {model}, hybrid", [*local, HIDDEN, *TAUGHT]
    for model, path in models.items():
        trained = ["generator=trained", f"generator.model={path}", f"generator.label={arguments.label}", queries]
        for pairs in PAIRS:
            count = "all" if pairs is None else str(pairs)
            some = [*trained, f"generator.pairs={'null' if pairs is None else pairs}"]
            yield f"trained {count} {model}", [*some, HIDDEN]
            yield f"trained {count} {model}, topical", [*some, HIDDEN, *TOPICAL]
            yield f"trained {count} {model}, hybrid", [*some, HIDDEN, *TAUGHT]
        whole = [*trained, "generator.pairs=null", HIDDEN]
        yield f"trained all {model}, cross-encoder", [*whole, *RANKER]
        yield f"trained all {model}, hybrid and cross-encoder", [*whole, *BOTH]
        yield f"trained all {model}, lexical", [*whole, *LEXICAL]
        first = f"{RUNS}/{slug(f'trained all {model}, hybrid')}-{SEED}/model"
        yield f"trained all {model}, hybrid, then labels", ["model=custom", f"model.path={first}"]
        yield f"trained all {model}, labels", trained
        yield f"trained all {model}, labels, hybrid", [*trained, *TAUGHT]


def keep_settings(out: Path, arguments: argparse.Namespace) -> None:
    """Write down what all rows have in common, or make sure that the rows that are there have it, too."""
    settings = {
        "data": str(Path(arguments.data).resolve()),
        "label": arguments.label,
        "style": arguments.style,
        "queries": arguments.queries,
        "overrides": sorted(arguments.overrides),
    }
    kept = out / "settings.json"
    if kept.is_file() and json.loads(kept.read_text(encoding="utf-8")) != settings:
        sys.exit(f"{kept} has other settings, so its rows are not comparable; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_text(kept, json.dumps(settings, indent=1) + "\n")


def _styles(wanted: str) -> list[str]:
    return [f"generator.styles.{name}.share={int(name == wanted)}" for name in ("question", "keywords", "claim")]


def slug(name: str) -> str:
    """Return a row's name as files and folders have it."""
    return name.replace(", ", "-").replace(" ", "-")


def run_once(out: Path, data: Path, name: str, words: Sequence[str], seed: int, overrides: Sequence[str]) -> None:
    """Run one row with one seed, and write its figures, unless they are there."""
    record = out / "rows" / f"{slug(name)}-{seed}.json"
    if record.is_file():
        return
    folder = out / "runs" / record.stem
    common = ["data=beir", f"data.path={data}", f"seed={seed}", "evaluator.depth=1000", f"run.dir={folder}"]
    store = [f"store.dir={out / 'store'}"]
    started = time.monotonic()
    words = [word.replace(RUNS, str(out / "runs")).replace(SEED, str(seed)) for word in words]
    if not any(word.startswith("generator=") for word in words):
        overrides = [word for word in overrides if not word.startswith("generator.")]
    command = [sys.executable, "-m", "embfit", *words, *common, *store, *overrides]
    print(f"{name}, seed {seed}: {' '.join(command[1:])}", file=sys.stderr, flush=True)
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(f"{name}, seed {seed} ended with {done.returncode}; the same command resumes it")
    found = figures(folder, data) | {"row": name, "seed": seed, "minutes": (time.monotonic() - started) / 60}
    record.parent.mkdir(parents=True, exist_ok=True)
    write_text(record, json.dumps(found, indent=1) + "\n")


def figures(run: Path, data: Path) -> dict[str, Any]:
    """Return what a run reached, by system, alone and fused with BM25, and what its queries took."""
    test, unseen = judged(data)
    systems = {
        name: {part: float(np.mean(list(values.values()))) for part, values in parts.items()}
        for name, parts in reached(run, test, unseen).items()
    }
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    generation = report.get("generation") or {}
    kept = (
        "generated",
        "kept",
        "dropped",
        "tokens",
        "seconds",
        "seconds_per_request",
        "held_out_loss",
        "trained_on_pairs",
    )
    return {
        "systems": systems,
        "queries": {"all": len(test), "unseen": len(unseen)},
        "generation": {name: generation[name] for name in kept if name in generation},
        "timings": report["timings"],
    }


def judged(data: Path) -> tuple[Qrels, Qrels]:
    """Return the judgements of all test queries, and of those none of whose documents is relevant to a training one."""
    test, train = read_qrels(data / "qrels" / "test.tsv"), read_qrels(data / "qrels" / "train.tsv")
    seen = {document for grades in train.values() for document, grade in grades.items() if grade >= 1}
    return test, {q: grades for q, grades in test.items() if not seen & {d for d, g in grades.items() if g >= 1}}


def reached(run: Path, test: Qrels, unseen: Qrels) -> dict[str, dict[str, Mapping[str, float]]]:
    """Return each query's nDCG@10 by system and part, alone and fused with BM25."""
    files = [run / "rankings" / f"{name}.trec" for name in ("base", "tuned", "bm25")]
    rankings = {file.stem: read_run(file) for file in files if file.is_file()}
    found: dict[str, dict[str, Mapping[str, float]]] = {}
    for name, ranking in rankings.items():
        fused = reciprocal_ranks([ranking, rankings["bm25"]], [0.5, 0.5], K, 1000)
        parts = {"all": (ranking, test), "unseen": (ranking, unseen), "fused": (fused, test)}
        parts["fused_unseen"] = (fused, unseen)
        found[name] = {part: per_query(one, qrels, [METRIC])[METRIC] for part, (one, qrels) in parts.items()}
    return found


def table(out: Path) -> str:
    """Return the rows as Markdown: means over seeds, with the standard deviation where there are several.

    A second table has the differences from the model of the row `base`, paired by query. Each query's difference is
    averaged over the seeds. The table is missing without that row.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for file in sorted((out / "rows").glob("*.json")):
        row = json.loads(file.read_text(encoding="utf-8"))
        found.setdefault(row["row"], []).append(row)
    lines = [
        "| row | seeds | all | unseen | fused, all | fused, unseen | kept of generated | tokens | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        system = "tuned" if "tuned" in runs[0]["systems"] else "base"
        values = [[run["systems"][system][part] for run in runs] for part in ("all", "unseen", "fused", "fused_unseen")]
        made = runs[0]["generation"]
        kept = f"{made['kept']:,} of {made['generated']:,}" if made else ""
        tokens = f"{made['tokens']:,}" if made else ""
        minutes = f"{np.mean([run['minutes'] for run in runs]):.1f}"
        lines.append(f"| {' | '.join([name, str(len(runs)), *map(_mean, values), kept, tokens, minutes])} |")
    if "base" not in found:
        return "\n".join(lines)
    lines += ["", "| over the base model | all | unseen | fused, all | fused, unseen |", "|---|---|---|---|---|"]
    parts = judged(Path(json.loads((out / "settings.json").read_text(encoding="utf-8"))["data"]))
    base = reached(out / "runs" / f"base-{found['base'][0]['seed']}", *parts)["base"]  # a row may begin with another
    for name, runs in found.items():
        if "tuned" in runs[0]["systems"]:
            seeds = [reached(out / "runs" / f"{slug(name)}-{run['seed']}", *parts)["tuned"] for run in runs]
            lines.append(f"| {name} | {' | '.join(_gains(base, seeds))} |")
    return "\n".join(lines)


def _gains(
    base: Mapping[str, Mapping[str, float]], seeds: Sequence[Mapping[str, Mapping[str, float]]]
) -> Iterator[str]:
    """Yield the mean difference between the tuned models and the base model in each part, with its 95 % interval."""
    for part, before in base.items():
        by_query = [np.mean([one[part][query] - before[query] for one in seeds]) for query in before]
        yield mean_and_interval(np.array(by_query))


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


if __name__ == "__main__":
    main()
