"""How each stage grows with the corpus, in seconds and memory, up to millions of documents; and what a corpus costs.

Documents are synthetic (words of the tokenizer's vocabulary by Zipf's law). The encoder is a stand-in: the mean of the
tokens' embeddings of MiniLM, so that what is measured is all around the model. Each stage is a process of its own, over
what the stages before it left in a store. Its memory is what the process itself holds beyond its imports and the model
(anonymous pages, sampled); pages of mapped files, which the system takes back at need, are not counted.

    python scripts/benchmarks/scale.py --documents 20000 200000
    python scripts/benchmarks/scale.py --documents 2000000 --stages load,tokenise,encode,exact,bf16
    python scripts/benchmarks/scale.py --cost scripts/benchmarks/scale.yaml

With --cost it measures nothing: hours and money of encoding and indexing, from the rates and prices of a YAML.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from measuring import AnonymousMemory
from minilm import MODEL
from torch import Tensor
from torch.nn import functional

from embfit.data import Beir
from embfit.index import ExactIndex, open_index
from embfit.index.approximate import Method
from embfit.miner import DenseMiner
from embfit.model import BiEncoder, embed
from embfit.model.embed import tokenized
from embfit.records import Collection, Embeddings, TrainingSet
from embfit.store import Store
from embfit.training.batches import EpochBatches, ExampleArrays
from embfit.training.grouping import RandomGrouping
from embfit.vectors import Vectors

STAGES = ("load", "tokenise", "encode", "exact", "int8", "bf16", "ivf", "mine", "batches")
DEFAULT = ("load", "tokenise", "encode", "exact", "int8", "ivf", "mine", "batches")
WORDS, ASKED = 48, 8  # of a document and of a query
BLOCK = 20_000  # documents written at once
SEARCHED = 100  # queries of a search
DEPTH = 100
MEGABYTE, BATCH = 1e6, 64
SIZES = (1_000_000, 10_000_000, 100_000_000)  # of the table of costs


class MeanOfTokens(BiEncoder):
    """Gives the mean of the tokens' embeddings, of unit length, in the place of a transformer's output."""

    def forward(self, input_ids: Tensor, roles: Tensor, bf16: bool = False) -> Tensor:
        """Embed token ids: [N, L] → [N, D]."""
        there = (roles != 0)[..., None]
        found = self.backbone.get_input_embeddings()(input_ids)  # [N, L, D]
        return functional.normalize((found * there).sum(1) / there.sum(1), dim=-1)


def main() -> None:
    """Measure each size and stage, or print the table of costs."""
    arguments = _arguments()
    if arguments.cost:
        _print_costs(yaml.safe_load(Path(arguments.cost).read_text(encoding="utf-8")))
        return
    if arguments.child:
        print(json.dumps(_measure(Path(arguments.child), arguments.stages)))
        return
    print("| documents | stage | seconds | documents a second | peak memory MB | files MB |\n|---|---|---|---|---|---|")
    for count in arguments.documents:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            _write(Path(scratch) / "collection", count, min(arguments.queries, count))
            for stage in arguments.stages.split(","):
                line = _in_a_process(scratch, stage)
                cells = [f"{count:,}", stage, f"{line['seconds']:.1f}", f"{count / line['seconds']:,.0f}"]
                cells += [f"{line['memory_mb']:,.0f}", f"{line['files_mb']:,.0f}"]
                print(f"| {' | '.join(cells)} |", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--queries", type=int, default=5_000, help="of the training split, at most one a document")
    parser.add_argument("--stages", default=",".join(DEFAULT), help="which of: " + ", ".join(STAGES))
    parser.add_argument("--scratch", help="a folder on a disk with room: 5 GB for a million documents")
    parser.add_argument("--cost", help="a YAML with rates and prices; prints the table of costs")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _write(folder: Path, documents: int, queries: int) -> None:
    """Write a BEIR folder; query i has the first words of a document, which answers it."""
    random = np.random.default_rng(0)
    vocabulary = np.array(sorted(word for word in MODEL.load("cpu").tokenizer.get_vocab() if word.isalpha()))
    random.shuffle(vocabulary)
    chances = 1 / np.arange(10, len(vocabulary) + 10)
    (folder / "qrels").mkdir(parents=True)
    every = documents // queries
    with (
        (folder / "corpus.jsonl").open("w") as corpus,
        (folder / "queries.jsonl").open("w") as asked,
        (folder / "qrels" / "train.tsv").open("w") as judged,
    ):
        judged.write("query-id\tcorpus-id\tscore\n")
        for start in range(0, documents, BLOCK):
            count = min(BLOCK, documents - start)
            drawn = random.choice(len(vocabulary), (count, WORDS), p=chances / chances.sum())
            for row, words in enumerate(vocabulary[drawn], start):
                corpus.write(f'{{"_id": "d{row}", "title": "", "text": "{" ".join(words)}"}}\n')
                if row % every == 0:
                    asked.write(f'{{"_id": "q{row}", "text": "{" ".join(words[:ASKED])}"}}\n')
                    judged.write(f"q{row}\td{row}\t1\n")


def _in_a_process(folder: str, stage: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", folder, "--stages", stage]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    line: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return line


@dataclass(frozen=True)
class Corpus:
    """What stages work on.

    Args:
        folder: of the collection.
        store: has what earlier stages made.
        encoder: the stand-in.
    """

    folder: Path
    store: Store
    encoder: BiEncoder

    def load(self) -> Collection:
        """Return the collection."""
        return Beir(path=str(self.folder)).load(self.store)

    def documents(self) -> Embeddings:
        """Return the documents' vectors."""
        return embed(self.encoder, self.load(), "document", self.store)

    def queries(self) -> Vectors[np.ndarray]:
        """Return some queries' vectors."""
        return embed(self.encoder, self.load(), "query", self.store).vectors.part(0, SEARCHED)

    def search(self, method: Method) -> None:
        """Build an index, and search it."""
        open_index(self.documents(), method, self.store).search(self.queries(), DEPTH)

    def mine(self) -> TrainingSet:
        """Mine negatives among the vectors."""
        miner = DenseMiner(negatives=4, depth=DEPTH, search="ivf")
        return miner.mine(self.load(), self.encoder, self.store)

    def batches(self) -> None:
        """Make the batches of an epoch, with their tokens."""
        mined = self.mine()
        examples = ExampleArrays(mined, 1)
        asked, read = (tokenized(self.encoder, mined.collection, kind, self.store) for kind in ("query", "document"))
        batches = EpochBatches(examples, RandomGrouping(len(examples), BATCH), 0, 0)
        for batch in (batches[row] for row in range(len(batches))):
            asked.take(batch.queries)
            read.take(batch.documents)


def _measure(folder: Path, stage: str) -> dict[str, float]:
    """Run one stage in this process."""
    import faiss

    assert faiss  # imported before memory is counted
    model = MODEL.load("cpu")
    encoder = MeanOfTokens(model.backbone, model.tokenizer, model.settings, source="stand-in").eval()
    corpus = Corpus(folder / "collection", Store(folder / "store"), encoder)
    stages: Mapping[str, Callable[[], object]] = {
        "load": corpus.load,
        "tokenise": lambda: tokenized(encoder, corpus.load(), "document", corpus.store),
        "encode": corpus.documents,
        "exact": lambda: ExactIndex(corpus.documents().vectors).search(corpus.queries(), DEPTH),
        "int8": lambda: corpus.search("int8"),
        "bf16": lambda: corpus.search("bf16"),
        "ivf": lambda: corpus.search("ivf"),
        "mine": corpus.mine,
        "batches": corpus.batches,
    }
    before = _bytes(folder)
    with torch.inference_mode(), AnonymousMemory() as memory:
        started = time.monotonic()
        stages[stage]()
        seconds = time.monotonic() - started
    return {
        "seconds": seconds,
        "memory_mb": (memory.most - memory.before) / MEGABYTE,
        "files_mb": (_bytes(folder) - before) / MEGABYTE,
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _print_costs(given: Mapping[str, Any]) -> None:
    """Print hours and money for each model, machine and size.

    Encoding takes the model's operations over what a device reaches; tokenising and indexing take processor cores.
    Tokenising runs beside encoding, so the longer of the two counts, and indexing comes after them.
    """
    tokens = given["tokens"]
    print(f"{tokens} tokens a document; prices in {given['currency']} an hour and machine\n")
    print("| model | machines | documents | hours | " + given["currency"] + " | vectors GB | what takes longest |")
    print("|---|---|---|---|---|---|---|")
    for model, shape in given["models"].items():
        operations = tokens * (2 * shape["weights"] + 4 * shape["layers"] * shape["width"] * tokens)
        for name, machines in given["machines"].items():
            rates = {
                "encoding": machines["count"] * machines["reached"] / operations,
                "tokenising": machines["count"] * machines["cores"] * given["tokenised"] / tokens,
                "indexing": machines["count"] * machines["cores"] * given["indexed"] * 384 / shape["width"],
            }
            slowest = min(rates, key=lambda stage: rates[stage])
            for size in SIZES:
                hours = size * (1 / min(rates["encoding"], rates["tokenising"]) + 1 / rates["indexing"]) / 3600
                cost = hours * machines["count"] * machines["price"]
                gigabytes = size * shape["width"] * 4 / 1e9
                cells = [model, name, f"{size:,}", f"{hours:,.2f}", f"{cost:,.2f}", f"{gigabytes:,.1f}", slowest]
                print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
