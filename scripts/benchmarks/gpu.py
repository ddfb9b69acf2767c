"""All checks and figures of a GPU, in about ten minutes, as one page of Markdown.

    python scripts/benchmarks/gpu.py --data DIR --out outputs/gpu
    python scripts/benchmarks/gpu.py --data DIR --out outputs/gpu-list --device cpu --pairs 8 --documents 16

The page says what the machine is; whether vectors, losses and gradients are those of the CPU, and those of two devices
(ddp, fsdp) the same as of one; whether a step waits for the device; and how fast texts are encoded and pairs are
trained, with the memory that this takes. Each measurement is a process of its own, so one that runs out of memory ends
alone, and the page says so. What is in OUT/measured.jsonl is not measured again. When the minutes are used up, what is
left is named and not run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import AnonymousMemory, read

STEPS = 4  # of a training; the first one warms up
SAME_LOSS, SAME_NORM = 1e-4, 1e-3  # relative distances that rounding may make in fp32
SAME_VECTORS = {"fp32": 1e-5, "bf16": 1e-2}  # 1 - cosine, at most
WAITS = "synchronizing CUDA operation"  # how PyTorch's warning of one reads


@dataclass(frozen=True)
class Measurement:
    """One thing to measure.

    Args:
        kind: `encode` or `train`.
        device: `cuda` or `cpu`.
        precision: that it computes in.
        attention: transformers' implementation.
        batch: pairs of a step.
        memory_gb: for kept graphs; None is half of what is free.
        compiled: whether training runs through `torch.compile`.
        checkpointing: whether layers are computed again.
        strategy: `ddp` or `fsdp`, by which two devices share the step; auto is one device.
    """

    kind: str
    device: str
    precision: str = "fp32"
    attention: str = "auto"
    batch: int = 0
    memory_gb: float | None = None
    compiled: bool = False
    checkpointing: bool = False
    strategy: str = "auto"

    @property
    def ranks(self) -> int:
        """How many devices train."""
        return 1 if self.strategy == "auto" else 2


@dataclass(frozen=True)
class Check:
    """A number held to a limit."""

    what: str
    found: float
    limit: float

    @property
    def passes(self) -> bool:
        """Whether it is within the limit."""
        return self.found <= self.limit


def main() -> None:
    """Measure what is missing, and write the page."""
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(measure(Measurement(**json.loads(arguments.one)), arguments)))
        return
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA device; --device cpu runs the same list on the CPU")
    arguments.out.mkdir(parents=True, exist_ok=True)
    results, end = arguments.out / "measured.jsonl", time.monotonic() + 60 * arguments.minutes
    for one in planned(arguments):
        if one not in (found := dict(_measured(results))) or "failed" in found[one]:
            done = _in_process(one, end)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"measurement": asdict(one), **done}) + "\n")
            print(_label(one), {key: value for key, value in done.items() if key != "vectors"}, file=sys.stderr)
    text = page(arguments, dict(_measured(results)))
    (arguments.out / "page.md").write_text(text, encoding="utf-8")
    print(text)


def planned(arguments: argparse.Namespace) -> list[Measurement]:
    """Return everything to measure, checks first."""
    device, batch = arguments.device, arguments.pairs
    encode, train = Measurement("encode", device), Measurement("train", device, batch=batch)
    formats = ["fp32", "bf16"]
    several = device == "cpu" or torch.cuda.device_count() > 1
    strategies = ["ddp", "fsdp"] if several else []
    attentions = ["sdpa", "eager", *(["flash_attention_2"] if _has_flash_attention() and device == "cuda" else [])]
    measured = [
        replace(encode, device="cpu"),
        *(replace(encode, precision=precision) for precision in formats),
        replace(train, device="cpu"),
        train,
        replace(train, memory_gb=0.0),
        *(replace(train, strategy=strategy) for strategy in strategies),
        *(replace(encode, precision="bf16", attention=attention) for attention in attentions),
        replace(train, precision="bf16"),
        *(replace(train, precision="bf16", batch=size) for size in (8 * batch, 32 * batch) if device == "cuda"),
        replace(train, precision="bf16", checkpointing=True),
        replace(train, precision="bf16", compiled=True),
        *(replace(train, precision="bf16", strategy=strategy) for strategy in strategies),
    ]
    return list(dict.fromkeys(measured))


def _in_process(one: Measurement, end: float) -> dict[str, Any]:
    """Measure in a process of its own, which may fail alone."""
    left = end - time.monotonic()
    if left <= 0:
        return {"failed": "no time was left; --minutes gives more"}
    try:
        done = subprocess.run(
            [sys.executable, *sys.argv, "--one", json.dumps(asdict(one))], capture_output=True, text=True, timeout=left
        )
    except subprocess.TimeoutExpired:
        return {"failed": "the time was used up; --minutes gives more"}
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"failed": said[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(one: Measurement, arguments: argparse.Namespace) -> dict[str, Any]:
    """Encode or train in this process."""
    from embfit.data import Beir
    from embfit.store import Store

    collection = Beir(str(arguments.data)).load(Store(enabled=False))
    if one.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with AnonymousMemory() as memory:
        found = (_encode if one.kind == "encode" else _train)(one, collection, arguments)
    most = torch.cuda.max_memory_allocated() if one.device == "cuda" else memory.most - memory.before
    return {**found, "megabytes": round(most / 2**20)}


def _encode(one: Measurement, collection: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    from embfit.model import Pretrained

    model: Any = replace(_model(arguments), precision=one.precision, attention=one.attention)
    assert isinstance(model, Pretrained)
    encoder = model.load(one.device)
    texts = list(collection.document_texts())[: arguments.documents]
    encoder.embed(texts[:8], "document")
    started = time.perf_counter()
    vectors = encoder.embed(texts, "document").rows
    seconds = time.perf_counter() - started
    return {"documents_per_second": len(texts) / seconds, "vectors": vectors[:64].astype(float).round(7).tolist()}


def _train(one: Measurement, collection: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    import pytorch_lightning as pl
    from training_systems import Case, draw, training_set

    from embfit.loss import InfoNCE
    from embfit.store import Store
    from embfit.training import Training

    precision: Any = one.precision
    encoder = replace(_model(arguments), precision=precision, compile=one.compiled).load(one.device)
    texts = draw(collection, Case("gpu", "", pairs=one.batch * STEPS, negatives=1), seed=0)
    texts = (texts * (one.batch * STEPS // max(len(texts), 1) + 1))[: one.batch * STEPS]  # of a small collection
    training = Training(
        steps=STEPS,
        batch_size=one.batch // one.ranks,
        precision=precision,
        memory_gb=one.memory_gb,
        gradient_checkpointing=one.checkpointing,
        warmup=0.0,
    )
    watched, numbers = _watched(one.device)
    trainer = partial(
        pl.Trainer,
        accelerator="gpu" if one.device == "cuda" else "cpu",
        devices=one.ranks,
        strategy=one.strategy,
        log_every_n_steps=1,
        logger=numbers,
        callbacks=[watched],
    )
    with tempfile.TemporaryDirectory() as folder:
        training.fit(encoder, InfoNCE(), training_set(texts), None, trainer, Store(enabled=False), Path(folder))
    return {
        "losses": [step["train/loss"] for step in numbers.steps],
        "norms": [step["train/gradient_norm"] for step in numbers.steps],
        "pairs_per_second": one.batch * (STEPS - 1) / (watched.ends[-1] - watched.ends[0]),
        "waits": watched.waits if one.device == "cuda" and one.ranks == 1 else None,
    }


def _watched(device: str) -> tuple[Any, Any]:
    """Return what listens to a training: to the ends of its steps and how often a step waits, and to its numbers."""
    import pytorch_lightning as pl
    from pytorch_lightning.loggers.logger import DummyLogger

    class Numbers(DummyLogger):
        def __init__(self) -> None:
            super().__init__()
            self.steps: list[Mapping[str, float]] = []

        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            if "train/loss" in metrics:
                self.steps.append(metrics)

    class Watched(pl.Callback):
        def __init__(self) -> None:
            self.ends: list[float] = []
            self.waits = 0
            self._recorded: warnings.catch_warnings[list[warnings.WarningMessage]] | None = None

        def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: object) -> None:
            if device == "cuda" and self.ends:  # the first step may wait
                self._recorded = warnings.catch_warnings(record=True)
                self._said = self._recorded.__enter__()
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")

        def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: object) -> None:
            if self._recorded is not None:
                torch.cuda.set_sync_debug_mode("default")
                self.waits += sum(WAITS in str(warning.message) for warning in self._said or ())
                self._recorded.__exit__(None, None, None)
                self._recorded = None
            if device == "cuda":
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

    return Watched(), Numbers()


def _model(arguments: argparse.Namespace) -> Any:
    from minilm import MODEL

    return replace(MODEL, path=arguments.model) if arguments.model else MODEL


def checks(arguments: argparse.Namespace, found: Mapping[Measurement, Mapping[str, Any]]) -> Iterator[Check]:
    """Yield each comparison whose two sides were measured."""
    device, batch = arguments.device, arguments.pairs
    truth = found.get(Measurement("encode", "cpu"), {}).get("vectors")
    for precision, limit in SAME_VECTORS.items():
        vectors = found.get(Measurement("encode", device, precision), {}).get("vectors")
        if truth and vectors:
            cosines = (np.array(truth) * np.array(vectors)).sum(axis=1)
            yield Check(f"vectors in {precision}: largest 1 - cosine with the CPU's in fp32", 1 - cosines.min(), limit)
    train = Measurement("train", device, batch=batch)
    for what, other in (
        ("the CPU", replace(train, device="cpu")),
        ("no kept graphs", replace(train, memory_gb=0.0)),
        *((f"{strategy} on two devices", replace(train, strategy=strategy)) for strategy in ("ddp", "fsdp")),
    ):
        here, there = found.get(train, {}), found.get(other, {})
        if here.get("losses") and there.get("losses"):
            for name, key, limit in (("loss", "losses", SAME_LOSS), ("gradient norm", "norms", SAME_NORM)):
                apart = abs(here[key][0] - there[key][0]) / abs(there[key][0])
                yield Check(f"{name} of the first step against {what}, relative", apart, limit)
    for one, measured in found.items():
        if measured.get("waits") is not None:
            yield Check(f"{_label(one)}: times that {STEPS - 1} steps wait for the device", measured["waits"], 0)


def page(arguments: argparse.Namespace, found: Mapping[Measurement, Mapping[str, Any]]) -> str:
    """Return the page."""
    lines = ["# embfit on this device", "", *_machine(arguments.device), "", "## Checks", ""]
    held = list(checks(arguments, found))
    rows: list[tuple[str, ...]] = [
        (one.what, f"{one.found:.2e}", f"{one.limit:g}", "yes" if one.passes else "**no**") for one in held
    ]
    lines += _table(("what", "found", "at most", "holds"), rows)
    for title, kind, rate in (("Encoding", "encode", "documents"), ("Training", "train", "pairs")):
        rows = [
            (_label(one), f"{of[f'{rate}_per_second']:,.1f}", f"{of['megabytes']:,}")
            for one, of in found.items()
            if one.kind == kind and "failed" not in of
        ]
        lines += ["", f"## {title}", "", *_table(("setting", f"{rate} a second", "MB at most"), rows)]
    failed = [(_label(one), str(of["failed"])) for one, of in found.items() if "failed" in of]
    if failed:
        lines += ["", "## Not measured", "", *_table(("setting", "why"), failed)]
    return "\n".join(lines) + "\n"


def _machine(device: str) -> list[str]:
    said = [f"- PyTorch {torch.__version__}, Python {sys.version.split()[0]}, {device}"]
    if device == "cuda":
        of = torch.cuda.get_device_properties(0)
        bf16 = "multiplies bf16" if torch.cuda.is_bf16_supported() else "does not multiply bf16"
        said.append(f"- {of.name}, {of.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, {bf16}")
        said.append(f"- flash-attn is {'installed' if _has_flash_attention() else 'not installed'}")
    return said


def _has_flash_attention() -> bool:
    from transformers.utils.import_utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())


def _label(one: Measurement) -> str:
    said = [one.kind, one.device, one.precision]
    if one.kind == "encode":
        return ", ".join([*said, f"attention {one.attention}"])
    kinds = {
        "no kept graphs": one.memory_gb == 0,
        "compiled": one.compiled,
        "checkpointing": one.checkpointing,
        f"{one.strategy} on two devices": one.ranks > 1,
    }
    return ", ".join([*said, f"batch {one.batch:,}", *(name for name, is_so in kinds.items() if is_so)])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]


def _measured(results: Path) -> Iterator[tuple[Measurement, dict[str, Any]]]:
    for line in read(results):
        yield Measurement(**line.pop("measurement")), line


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder in the BEIR layout, with a train split")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--model", help="a folder, or a name on the Hub; all-MiniLM-L6-v2 by default")
    parser.add_argument("--pairs", type=int, default=128, help="of a step; larger batches are multiples of it")
    parser.add_argument("--documents", type=int, default=5_000, help="to encode")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
