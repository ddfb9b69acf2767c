"""What a query adapter, a bridge and a full fine-tuning gain over the base model, on the same queries.

An adapter and a bridge keep the base model's index; a full fine-tuning encodes all documents again. Each run is made
once, in OUT/NAME, so the same command continues after an interruption. A query's difference is the mean over the seeds.

    python scripts/benchmarks/without_reindexing.py scifact=DIR --seeds 0,1,2
    python scripts/benchmarks/without_reindexing.py scifact=DIR --seeds 0 --tuned 'outputs/tuned-{seed}/model'
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import mean_and_interval, named_folder, numbers, run_once

from embfit.data import Beir
from embfit.evaluator.subsets import seen_by_training
from embfit.store import Store

METRIC = "ndcg@10"


def main() -> None:
    """Make the runs and print a table for each collection."""
    arguments = _arguments()
    for name, data in arguments.collections:
        runs = [_runs(data, arguments.out / name, seed, arguments.tuned) for seed in arguments.seeds]
        for line in _table(name, data, runs):
            print(line, flush=True)


def _runs(data: Path, out: Path, seed: int, tuned: str | None) -> Mapping[str, Mapping[str, Any]]:
    """Return the reports of a seed's runs, which are made if they are not there."""
    collection = ["data=beir", f"data.path={data}"]
    bundle = [f"bundle.dir={out / 'bundles'}", "bundle.name=old"]
    run_once(out / "index", ["task=index", *collection, *bundle])
    run_once(out / f"adapter-{seed}", [*collection, "model.query_adapter.rank=64", f"seed={seed}"])
    if tuned is None:
        run_once(out / f"full-{seed}", [*collection, f"seed={seed}"])
    model = str(out / f"full-{seed}" / "model") if tuned is None else tuned.format(seed=seed)
    bridge = ["task=bridge", "task.version=1", "task.own_index=true", "model=custom", f"model.path={model}"]
    run_once(out / f"bridge-{seed}", [*bridge, *collection, *bundle, f"seed={seed}"])
    named = ("adapter", "bridge")
    return {one: json.loads((out / f"{one}-{seed}" / "report.json").read_text(encoding="utf-8")) for one in named}


def _table(name: str, data: Path, runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    """Yield the lines of a collection's table, and what took how long."""
    collection = Beir(str(data)).load(Store(enabled=False))
    systems = {
        "base": [run["adapter"]["systems"]["base"] for run in runs],
        "query adapter": [run["adapter"]["systems"]["tuned"] for run in runs],
        "full fine-tuning over a bridge": [run["bridge"]["systems"]["bridge"] for run in runs],
        "full fine-tuning, own index": [run["bridge"]["systems"]["own index"] for run in runs],
    }
    values = {system: _mean_by_query(found) for system, found in systems.items()}
    queries = sorted(values["base"])
    seen = seen_by_training(collection, "test")
    parts = {
        "all": queries,
        "seen": [query for query in queries if query in seen],
        "unseen": [query for query in queries if query not in seen],
    }
    titles = [f"{part}, {len(named)}" for part, named in parts.items()]
    yield f"\n{name}: nDCG@10 by seed, and its difference from the base (95 % interval)"
    yield f"| | seeds | {' | '.join(titles)} |"
    yield f"|---|---|{'---|' * len(titles)}"
    for system, found in systems.items():
        spread = ", ".join(dict.fromkeys(f"{one['metrics'][METRIC]:.4f}" for one in found))
        cells = [""] * len(parts)
        if system != "base":
            differences = {query: values[system][query] - values["base"][query] for query in queries}
            cells = [mean_and_interval(np.array([differences[query] for query in named])) for named in parts.values()]
        yield f"| {system} | {spread} | {' | '.join(cells)} |"
    adapter = [run["adapter"]["timings"]["train"] for run in runs]
    bridge = [run["bridge"]["bridge"]["seconds"] for run in runs]
    yield f"adapter: trained in {min(adapter):.1f} to {max(adapter):.1f} s, embedding of the training queries included"
    yield f"bridge: fitted in {min(bridge):.1f} to {max(bridge):.1f} s"


def _mean_by_query(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    by_seed = [one["per_query"][METRIC] for one in found]
    return {query: float(np.mean([values[query] for values in by_seed])) for query in by_seed[0]}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", type=named_folder, help="NAME=DIR, in BEIR's layout")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--tuned", help="the folder of a seed's fully tuned model, such as runs/tuned-{seed}/model")
    parser.add_argument("--out", type=Path, default=Path("outputs/without-reindexing"), help="for the runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
