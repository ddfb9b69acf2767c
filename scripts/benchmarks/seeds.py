"""What a fine-tuning with the defaults gains, and how far its result depends on the seed.

Each seed is a run of its own in OUT/NAME/SEED. A run that is finished is not made again, so the same command continues
after an interruption; other data or overrides need another OUT. `--wrong-labels` trains on judgements that were
shuffled among the training queries, so that training can only hurt: the base model has to be kept. What follows
`--overrides` goes to every run.

    python scripts/benchmarks/seeds.py scifact=DIR medquad-small=DIR --seeds 0,1,2,3,4
    python scripts/benchmarks/seeds.py scifact=DIR --seeds 0,1,2 --wrong-labels
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import mean_and_interval, named_folder, numbers, run_once

from embfit.report.formatting import signed

METRIC = "ndcg@10"
COLUMNS = (
    "base",
    "tuned, mean (least to most)",
    "tuned − base (95 % interval)",
    "the same on unseen documents (least to most)",
    "kept step",
    "minutes a run",
)


def main() -> None:
    """Make the runs and print a table of the collections."""
    arguments = _arguments()
    print(f"| nDCG@10 | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for name, data in arguments.collections:
        if arguments.wrong_labels:
            data = _with_wrong_labels(data, arguments.out / f"{name}-wrong-labels" / "data")
            name = f"{name}-wrong-labels"
        reports = [_run(data, arguments.out / name, seed, arguments.overrides) for seed in arguments.seeds]
        print(_row(name, reports), flush=True)


def _run(data: Path, out: Path, seed: int, overrides: Sequence[str]) -> Mapping[str, Any]:
    """Return the report of a seed's run, which is made if it is not there."""
    folder = out / str(seed)
    run_once(folder, ["data=beir", f"data.path={data}", f"seed={seed}", *overrides])
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def _row(name: str, reports: Sequence[Mapping[str, Any]]) -> str:
    """Return a collection's line; a query's difference is the mean over the seeds."""
    base = _of(reports[0], "base")["metrics"][METRIC]
    tuned = [_of(report, "tuned")["metrics"][METRIC] for report in reports]
    kept = ", ".join(f"{report['training']['kept_step']} of {report['training']['steps']}" for report in reports)
    minutes = np.median([sum(report["timings"].values()) / 60 for report in reports])
    return (
        f"| {name} | {base:.4f} | {np.mean(tuned):.4f} ({min(tuned):.4f} to {max(tuned):.4f}) | "
        f"{_gain(reports)} | {_unseen(reports)} | {kept} | {minutes:.0f} |"
    )


def _gain(reports: Sequence[Mapping[str, Any]]) -> str:
    """Return the difference to the base and its interval over queries, each query's mean over the seeds first."""
    before, after = ([_of(report, system)["per_query"][METRIC] for report in reports] for system in ("base", "tuned"))
    differences = [[b[query] - a[query] for query in a] for a, b in zip(before, after, strict=True)]
    return mean_and_interval(np.mean(differences, axis=0))


def _unseen(reports: Sequence[Mapping[str, Any]]) -> str:
    """Return the difference to the base on queries of documents that training never saw, least to most over seeds."""
    parts = [[_of(report, system)["subsets"].get("unseen") for system in ("base", "tuned")] for report in reports]
    if parts[0][0] is None:
        return ""
    differences = [tuned["metrics"][METRIC] - base["metrics"][METRIC] for base, tuned in parts]
    queries = parts[0][0]["queries"]
    mean, least, most = (signed(value) for value in (float(np.mean(differences)), min(differences), max(differences)))
    return f"{mean} ({least} to {most}), {queries} queries"


def _of(report: Mapping[str, Any], system: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = report["systems"][system]
    return found


def _with_wrong_labels(data: Path, folder: Path) -> Path:
    """Return a copy of a collection whose training queries have each other's documents."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for path in _files(data):
        target = folder / path.relative_to(data)
        if not target.exists():
            target.symlink_to(path.resolve())
    training = folder / "qrels" / "train.tsv"
    training.unlink()
    header, *lines = (data / "qrels" / "train.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    documents = [row[1] for row in rows]
    random.Random(0).shuffle(documents)
    shuffled = ["\t".join((row[0], document, *row[2:])) for row, document in zip(rows, documents, strict=True)]
    training.write_text("\n".join((header, *shuffled)) + "\n", encoding="utf-8")
    return folder


def _files(data: Path) -> Iterator[Path]:
    yield from data.glob("*.jsonl")
    yield from data.glob("qrels/*.tsv")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", type=named_folder, help="NAME=DIR, in BEIR's layout")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2, 3, 4])
    parser.add_argument("--wrong-labels", action="store_true", help="train on shuffled judgements")
    parser.add_argument("--out", type=Path, default=Path("outputs/seeds"), help="for the runs")
    parser.add_argument("--overrides", nargs="*", default=[], help="of every run, such as training.epochs=1")
    return parser.parse_args()


if __name__ == "__main__":
    main()
