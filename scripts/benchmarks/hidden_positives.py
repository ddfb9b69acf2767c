"""How many hidden positives a margin takes for negatives, and its price: the estimate of `task=mine` for many margins.

python scripts/benchmarks/hidden_positives.py medquad-small=DIR --negatives 4 --seeds 0,1,2
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from functools import partial

from minilm import MODEL

from embfit.data import Beir
from embfit.miner import DenseMiner
from embfit.miner.false_negative_estimate import FalseNegatives, estimate
from embfit.model import Encoder, Pretrained
from embfit.records import Collection, TrainingSet
from embfit.store import Store

LIMITS: Mapping[str, Mapping[str, float | None]] = {
    "none": {"relative_margin": None},
    "1 % below the lowest positive": {"relative_margin": 0.01},
    "5 % below the lowest positive": {"relative_margin": 0.05},
    "10 % below the lowest positive": {"relative_margin": 0.1},
    "0.05 below the lowest positive": {"relative_margin": None, "absolute_margin": 0.05},
    "no near-duplicate of a positive (0.5)": {"relative_margin": None, "near_duplicate": 0.5},
}


def main() -> None:
    """Print a table for each collection."""
    arguments = _arguments()
    store = Store(arguments.store)
    encoder = Pretrained(arguments.model).load() if arguments.model else MODEL.load()
    seeds = list(map(int, arguments.seeds.split(",")))
    for name, folder in (named.split("=", 1) for named in arguments.collections):
        collection = Beir(path=folder).load(store)
        print(f"\n{name}, {arguments.negatives} negatives, {arguments.share:.0%} hidden, seeds {arguments.seeds}\n")
        print("| limit | hidden positives taken | of the negatives | queries without a negative |")
        print("|---|---|---|---|")
        for limit, values in LIMITS.items():
            miner = DenseMiner(negatives=arguments.negatives, **values)  # type: ignore[arg-type]  # of several types
            print(_line(limit, partial(_mine, miner, encoder, store), collection, arguments.share, seeds), flush=True)


def _mine(miner: DenseMiner, encoder: Encoder, store: Store, collection: Collection) -> TrainingSet:
    return miner.mine(collection, encoder, store)


def _line(
    limit: str, mine: Callable[[Collection], TrainingSet], collection: Collection, share: float, seeds: list[int]
) -> str:
    found: list[FalseNegatives] = [estimate(mine, collection, share, seed) for seed in seeds]
    hidden, taken, mined = (sum(getattr(one, name) for one in found) for name in ("hidden", "taken", "mined"))
    facts = mine(collection).facts
    without = f"{facts['without']:,} of {facts['queries']:,}"
    return f"| {limit} | {taken} of {hidden} ({taken / max(hidden, 1):.0%}) | {taken / max(mined, 1):.1%} | {without} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", help="NAME=BEIR_FOLDER")
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("--share", type=float, default=0.5, help="of each query's positives to hide")
    parser.add_argument("--seeds", default="0", help="separated by commas; figures are summed over them")
    parser.add_argument("--model", default=None, help="folder or name; all-MiniLM-L6-v2 by default")
    parser.add_argument("--store", default="outputs/store")
    logging.basicConfig(level=logging.WARNING)
    return parser.parse_args()


if __name__ == "__main__":
    main()
