"""Where the CPU time of a training step goes: one step of embfit's own engine under `torch.profiler`, by kind of work.

The step after the warm-up is profiled, on the same pairs: tokens, batches, micro-batches, attention, loss and optimizer
are those of `python -m embfit`. Shares are of the time within PyTorch's operators, without those that they call.

    python scripts/benchmarks/profile_step.py --data DIR --pairs 32 --threads 1
    python scripts/benchmarks/profile_step.py --data DIR --pairs 256 --padding

The second table splits the share of the core's peak into three factors, and says what would be reached if one of them
were 1: no padding, nothing but matrix products, and products as fast as a large one. `--padding` counts the first
factor alone, under several budgets: it takes no time, and is the same on any machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from minilm import MODEL
from torch.profiler import ProfilerActivity, profile
from training_systems import EMBFIT, Case, draw, flops_of, matrix_peak, training_set

from embfit.data import Beir
from embfit.loss import InfoNCE
from embfit.model.precision import uses_bf16
from embfit.store import Store
from embfit.tokens import plan_batches
from embfit.training import Training
from embfit.training.step.module import training_module

KINDS: Mapping[str, frozenset[str]] = {
    "matrix products of the layers (`mm`, `addmm`)": frozenset({"aten::mm", "aten::addmm"}),
    "matrix products of attention (`bmm`)": frozenset({"aten::bmm", "aten::baddbmm"}),
    "clearing memory": frozenset({"aten::fill_", "aten::zero_"}),
    "copies and casts": frozenset({"aten::copy_", "aten::_to_copy", "aten::clone", "aten::cat", "aten::index_select"}),
    "softmax and its backward": frozenset({"aten::_softmax", "aten::_softmax_backward_data"}),
    "GELU and its backward": frozenset({"aten::gelu", "aten::gelu_backward"}),
    "layer norm and its backward": frozenset({"aten::native_layer_norm", "aten::native_layer_norm_backward"}),
    "additions, sums and scaling": frozenset(
        {"aten::add", "aten::add_", "aten::sum", "aten::mul", "aten::mul_", "aten::index_add_", "aten::scatter_add_"}
    ),
    "the optimizer": frozenset({"aten::_fused_adamw_", "Optimizer.step#AdamW.step", "aten::linalg_vector_norm"}),
}
OTHER = "other"
BUDGETS = (512, 1024, 2048, 4096, 16_384)


class Profiled(pl.Callback):
    """Profiles a training step, the first after the warm-up.

    Attributes:
        lengths: tokens of each text of the step.
        padded: as many tokens as each text is padded to.
        seconds: of CPU time within each operator, by name.
    """

    def __init__(self) -> None:
        self.lengths = self.padded = np.zeros(0, np.int64)
        self.seconds: dict[str, float] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have the second step profiled, and nothing that Lightning does around it."""
        module, step = training_module(pl_module), pl_module.training_step

        def profiled(batch: Any, batch_idx: int) -> None:
            if module.steps_taken != 1:
                step(batch, batch_idx)
                return
            self.lengths = batch.texts.lengths
            self.padded = padded(self.lengths, module.compute.token_budget)
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                step(batch, batch_idx)
            self.seconds = {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}

        pl_module.training_step = profiled  # type: ignore[method-assign]


def main() -> None:
    """Train two steps, and print the second one's table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    case = Case("profile", EMBFIT, pairs=arguments.pairs, max_length=arguments.max_length)
    texts = draw(Beir(path=arguments.data).load(Store(enabled=False)), case, arguments.seed)
    encoder = replace(MODEL, max_length=arguments.max_length).load("cpu")
    if arguments.padding:
        distinct = {text for query, document, negatives in texts for text in (query, document, *negatives)}
        print(paddings(encoder.backbone.config, encoder.tokenize(distinct, "document").lengths))
        return
    training = Training(steps=2, batch_size=len(texts), precision=arguments.precision)
    step, bf16 = Profiled(), uses_bf16(arguments.precision, encoder.device)
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False, callbacks=[step])
    with tempfile.TemporaryDirectory() as folder:
        training.fit(encoder, InfoNCE(), training_set(texts), None, trainer, Store(enabled=False), Path(folder))
    print(
        f"{len(texts)} pairs of {Path(arguments.data).resolve().name}, {step.padded.sum():,} padded tokens, "
        f"{'bf16' if bf16 else 'fp32'}, threads: {arguments.threads}\n"
    )
    print(table(step.seconds))
    print(f"\n{account(encoder.backbone.config, step, matrix_peak(bf16))}")
    if arguments.operators:
        print(f"\n{operators(step.seconds)}")


def table(seconds: Mapping[str, float]) -> str:
    """Return the share of each kind of work as Markdown, the largest first and the rest last."""
    shares = dict.fromkeys([*KINDS, OTHER], 0.0)
    for operator, spent in seconds.items():
        shares[kind_of(operator)] += spent / sum(seconds.values())
    rest = shares.pop(OTHER)
    ordered = [*sorted(shares.items(), key=lambda share: -share[1]), (OTHER, rest)]
    return "\n".join(["| what | share of CPU time |", "|---|---|", *(f"| {kind} | {of:.1%} |" for kind, of in ordered)])


def padded(lengths: np.ndarray, budget: int) -> np.ndarray:
    """Return how many tokens each text is computed with."""
    found = np.zeros_like(lengths)
    for rows in plan_batches(lengths, budget):
        found[rows] = lengths[rows].max()
    return found


def account(config: Any, step: Profiled, peak: float) -> str:
    """Split what a step reaches of a core's peak into factors, as Markdown."""
    products = sum(spent for name, spent in step.seconds.items() if "products" in kind_of(name))
    everything = sum(step.seconds.values())
    needed, computed = flops_of(config, step.lengths), flops_of(config, step.padded)
    reached = needed / everything / peak
    factors = {
        "products that are of no padding": needed / computed,
        "time that is in products": products / everything,
        "the products' speed, of a large one's": computed / products / peak,
    }
    lines = ["| factor | now | of the peak, were it 1 |", "|---|---|---|"]
    lines += [f"| {name} | {factor:.3f} | {reached / factor:.2f} |" for name, factor in factors.items()]
    return "\n".join(
        [*lines, f"| all three, which is the share of the peak ({peak / 1e9:.0f} GFLOP/s) | {reached:.3f} | |"]
    )


def paddings(config: Any, lengths: np.ndarray) -> str:
    """Return the share of products that is of no padding under several budgets, as Markdown."""
    lines = [
        "| token budget | micro-batches | different shapes | products that are of no padding |",
        "|---|---|---|---|",
    ]
    for budget in BUDGETS:
        plan = plan_batches(lengths, budget)
        shapes = {(len(rows), int(lengths[rows].max())) for rows in plan}
        share = flops_of(config, lengths) / flops_of(config, padded(lengths, budget))
        lines.append(f"| {budget:,} | {len(plan)} | {len(shapes)} | {share:.3f} |")
    return "\n".join(lines)


def operators(seconds: Mapping[str, float]) -> str:
    """Return the time of each operator as Markdown, the largest first."""
    lines = ["| operator | kind | CPU-seconds |", "|---|---|---|"]
    ordered = sorted(seconds.items(), key=lambda operator: -operator[1])
    return "\n".join([*lines, *(f"| {name} | {kind_of(name)} | {spent:.4f} |" for name, spent in ordered)])


def kind_of(operator: str) -> str:
    """Return what kind of work an operator does."""
    return next((kind for kind, names in KINDS.items() if operator in names), OTHER)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder in the BEIR layout")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=256, help="tokens read of a text")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs")
    parser.add_argument(
        "--padding", action="store_true", help="count padding under several budgets, and compute nothing"
    )
    parser.add_argument("--operators", action="store_true", help="print each operator's time as well")
    return parser.parse_args()


if __name__ == "__main__":
    main()
