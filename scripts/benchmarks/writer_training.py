"""What one step of training a query writer takes, by the size of its micro-batches: processor time and memory.

Each row is one step on the same documents, in a process of its own: forward and backward passes, without the
optimizer, whose weights' moments take twice the weights' memory in any case. The largest budget computes all documents
of the step at once. Memory is that of the process alone, above what it had with the weights loaded; the gradients are
in it. Losses differ by rounding.

    OMP_NUM_THREADS=2 python scripts/benchmarks/writer_training.py DIR FILE.gguf --pairs 16 --budgets 1024,100000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import torch
from measuring import AnonymousMemory

from embfit.data import Beir
from embfit.generator import TrainedGenerator
from embfit.generator.language_model import ModelFiles, load_language_model
from embfit.generator.trained import own_pairs
from embfit.generator.writer_loss import WriterLoss, WrittenPair
from embfit.model.precision import choose_device, uses_bf16
from embfit.store import Store

GB = 1e9


def main() -> None:
    """Print a row for each budget, measured in a process of its own."""
    arguments = parser().parse_args()
    if arguments.budget is not None:
        print(json.dumps(measure(arguments, arguments.budget)))
        return
    print("| budget | documents | tokens | CPU seconds | GB at most | loss a token |\n|---|---|---|---|---|---|")
    for budget in arguments.budgets.split(","):
        command = [sys.executable, __file__, *sys.argv[1:], "--budget", budget]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = json.loads(said.splitlines()[-1])
        measured = [f"{row['seconds']:.1f}", f"{row['memory']:.2f}", f"{row['loss']:.4f}"]
        print(f"| {' | '.join([budget, str(row['documents']), format(row['tokens'], ','), *measured])} |", flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("data", help="a folder in the BEIR layout, with training pairs")
    found.add_argument("model", help="a causal model: a folder, a .gguf file, or a name on the Hub")
    found.add_argument("--pairs", type=int, default=16, help="of the step")
    found.add_argument("--budgets", default="512,1024,2048,100000", help="padded tokens of a micro-batch")
    found.add_argument("--budget", type=int, help=argparse.SUPPRESS)
    found.add_argument("--device", default="auto")
    found.add_argument("--precision", default="auto")
    found.add_argument("--store", default="outputs/store", help="keeps what was read from GGUF")
    return found


def measure(arguments: argparse.Namespace, budget: int) -> dict[str, float]:
    """Return what one step takes whose micro-batches have a budget."""
    store, device = Store(arguments.store), choose_device(arguments.device)
    files = ModelFiles.find(arguments.model, None, None, store)
    model, tokenizer, _ = load_language_model(files.folder, torch.float32)
    loss = WriterLoss(model.to(device).train(), uses_bf16(arguments.precision, device), budget)
    documents = step(arguments, tokenizer, store)
    with AnonymousMemory() as memory:
        started = time.process_time()
        found = loss.backward(documents)
        seconds = time.process_time() - started
    tokens = sum(pair.length for pair in documents)
    held = (memory.most - memory.before) / GB
    return {"documents": len(documents), "tokens": tokens, "seconds": seconds, "memory": held, "loss": found}


def step(arguments: argparse.Namespace, tokenizer: object, store: Store) -> list[WrittenPair]:
    """Return documents with as many queries as are wanted of a step, or a few more, in a random order."""
    generator = TrainedGenerator(model=arguments.model)
    pairs = own_pairs(Beir(arguments.data).load(store), None, generator.seed)
    made = generator.tokenized(pairs, tokenizer)
    chosen: list[WrittenPair] = []
    for place in np.random.default_rng(generator.seed).permutation(len(made)).tolist():
        if sum(len(pair.queries) for pair in chosen) >= arguments.pairs:
            break
        chosen.append(made[place])
    return chosen


if __name__ == "__main__":
    main()
