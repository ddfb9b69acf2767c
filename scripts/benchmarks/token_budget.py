"""How many padded tokens a CPU or GPU should compute at once, and with which attention: encoding and training.

Variants alternate on the same texts; medians of wall time, relative to the first variant. Training is the forward and
backward passes of the engine, with every graph kept and without the optimizer.

    python scripts/benchmarks/token_budget.py --data ../data/medquad-small --texts 100 --rounds 5
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from statistics import median

import numpy as np
import torch
from minilm import MODEL

from embfit.data import Beir, PythonDocs
from embfit.model import Encoder
from embfit.model.precision import uses_bf16
from embfit.store import Store
from embfit.tokens import Tokens, plan_batches
from embfit.training.step.backbone import direct_lookup
from embfit.training.step.gradient_cache import CachedEncoding


def main() -> None:
    """Print a table of seconds by budget and attention."""
    arguments = _arguments()
    source = Beir(path=arguments.data) if arguments.data else PythonDocs()
    collection = source.load(Store(enabled=False))
    encoder = replace(MODEL, max_length=arguments.max_length).load()
    bf16 = uses_bf16("auto", encoder.device)
    tokens = encoder.tokenize(collection.document_texts(), "document")
    budgets = [int(value) for value in arguments.budgets.split(",")]
    for name, work in (("encode", _encode), ("train", _train)):
        seconds: dict[tuple[int, str], list[float]] = {}
        for seed in range(arguments.rounds + 1):
            rows = np.random.default_rng(seed).choice(len(tokens), arguments.texts, replace=False)
            texts = tokens.take(rows)
            for budget, attention in product(budgets, ("sdpa", "eager")):
                encoder.backbone.set_attn_implementation(attention)
                started = _now(encoder.device)
                work(encoder, texts, budget, bf16)
                spent = _now(encoder.device) - started
                if seed:  # the first round warms up
                    seconds.setdefault((budget, attention), []).append(spent)
        first = median(next(iter(seconds.values())))
        print(
            f"\n{name}: {arguments.texts} texts\n\n"
            "| budget | attention | seconds | against the first |\n|---|---|---|---|"
        )
        for (budget, attention), found in seconds.items():
            print(f"| {budget} | {attention} | {median(found):.2f} | {first / median(found):.2f}× |")


def _now(device: torch.device) -> float:
    """Return the time when the device has done all that it was asked."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


@torch.inference_mode()
def _encode(encoder: Encoder, tokens: Tokens, budget: int, bf16: bool) -> None:
    for rows in plan_batches(tokens.lengths, budget):
        _vectors(encoder, tokens, rows, bf16)


def _train(encoder: Encoder, tokens: Tokens, budget: int, bf16: bool) -> None:
    batches = plan_batches(tokens.lengths, budget)
    encoding = CachedEncoding[np.ndarray](lambda rows: _vectors(encoder, tokens, rows, bf16), lambda _: nullcontext())
    with direct_lookup(encoder.backbone):
        vectors = encoding.forward(batches, keep=len(batches))
        encoding.backward([torch.ones_like(some) for some in vectors])  # what a gradient costs is not in its values
    encoder.zero_grad()


def _vectors(encoder: Encoder, tokens: Tokens, rows: np.ndarray, bf16: bool) -> torch.Tensor:
    ids, mask = tokens.padded(rows, encoder.pad_id)
    vectors: torch.Tensor = encoder(ids.to(encoder.device), mask.to(encoder.device), bf16)
    return vectors


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a BEIR folder; by default the documentation strings of the standard library")
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budgets", default="16384,8192,4096,2048,1024,512")
    parser.add_argument("--max-length", type=int, default=256)
    return parser.parse_args()


if __name__ == "__main__":
    main()
