"""What training in late interaction costs: MaxSim's share of a step, memory by batch size, and pairs a second.

All systems begin at the same folder, a new projection on MiniLM, and train on the same pairs with two documents of the
corpus as negatives of each, in bf16 where the processor multiplies it. Each run is a process of its own, which takes
one step to warm up before it is measured. `speed` lets the systems take turns (`--rounds`) and prints medians; the
first step's loss must be the same, or the comparison is refused. Pairs per CPU second do not count other work on the
machine. Memory is anonymous memory above what the process had before training; for `memory`, embfit keeps no graph
(`training.memory_gb=0`).

PyLate pins other releases of transformers, so it has an environment of its own:

    python -m venv PYLATE
    PYLATE/bin/pip install torch==2.13.0 transformers==5.3.0 sentence-transformers==5.3.0 ujson scipy pandas
    PYLATE/bin/pip install accelerate datasets && PYLATE/bin/pip install --no-deps pylate==1.6.0
    python scripts/benchmarks/late_interaction.py speed --data DIR --pylate PYLATE/bin/python --steps 4 --rounds 5
    python scripts/benchmarks/late_interaction.py memory --data DIR --batches 64,512 --document-length 48

What late interaction gains is measured by `late_interaction_quality.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

LENGTHS = {"query_length": 32, "document_length": 180}
TEMPERATURE = 0.03  # of the mean; PyLate's is of the sum
RATE = 3e-5
SYSTEMS = ("embfit", "PyLate Contrastive", "PyLate CachedContrastive")
APART = 0.02  # by which first losses may differ: bf16 rounds, and each system in its own order


def main() -> None:
    """Measure each case in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["speed", "memory", "one"])
    parser.add_argument("--data", type=Path, help="a folder in the BEIR layout, with a train split")
    parser.add_argument("--pylate", type=Path, help="the Python of PyLate's environment; without it, embfit alone")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--systems", help=f"some of {', '.join(SYSTEMS)}; all by default")
    parser.add_argument("--batches", default="64")
    parser.add_argument("--steps", type=int, default=1, help="measured, after one to warm up")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each system, in turns")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--negatives", type=int, default=2)
    parser.add_argument("--document-length", type=int, default=LENGTHS["document_length"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--system", default="embfit", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--keep-no-graph", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.study == "one":
        print(json.dumps(measure(arguments)))
        return
    asked = arguments.systems.split(",") if arguments.systems else SYSTEMS
    systems = list(asked) if arguments.study == "speed" and arguments.pylate else list(SYSTEMS[:1])
    with tempfile.TemporaryDirectory() as folder:
        for batch in map(int, arguments.batches.split(",")):
            place = Path(folder) / str(batch)
            prepare(arguments, batch, place)
            found: dict[str, list[dict[str, Any]]] = {system: [] for system in systems}
            for turn in range(arguments.rounds):
                for system in systems[turn % len(systems) :] + systems[: turn % len(systems)]:  # each is first in turn
                    found[system].append(run(arguments, system, place))
            check_losses({system: runs[0]["first_loss"] for system, runs in found.items()})
            for system, runs in found.items():
                told = {key: statistics.median(one[key] for one in runs) for key in runs[0]}
                print(json.dumps({"system": system, "batch": batch, "runs": len(runs), **told}), flush=True)


def check_losses(losses: dict[str, float]) -> None:
    """Refuse to compare systems that do not compute the same."""
    least, most = min(losses.values()), max(losses.values())
    if most - least > APART * most:
        sys.exit(f"the systems' first losses differ: {losses}; they do not train the same")


def prepare(arguments: argparse.Namespace, batch: int, folder: Path) -> None:
    """Write the model that all systems begin with, and the pairs."""
    from minilm import MODEL
    from training_systems import Case, draw

    from embfit.data import Beir
    from embfit.model import LateInteraction, save_encoder
    from embfit.store import Store

    lengths = LENGTHS | {"document_length": arguments.document_length}
    save_encoder(LateInteraction(arguments.model, packages=MODEL.packages, **lengths).load("cpu"), folder / "model")
    collection = Beir(str(arguments.data)).load(Store(enabled=False))
    pairs = batch * (arguments.steps + 1)
    texts = draw(collection, Case("late interaction", "", pairs=pairs, negatives=arguments.negatives), seed=0)
    if len(texts) < pairs:
        sys.exit(
            f"{arguments.data} has {len(texts)} training pairs, and {pairs} are wanted; lower --batches or --steps"
        )
    (folder / "pairs.json").write_text(json.dumps({"batch": batch, "texts": texts}))


def run(arguments: argparse.Namespace, system: str, folder: Path) -> dict[str, Any]:
    """Measure a system in a process of its own."""
    import torch

    from embfit.model.precision import uses_bf16

    precision = "bf16" if uses_bf16(arguments.precision, torch.device("cpu")) else "fp32"
    python = sys.executable if system == "embfit" else str(arguments.pylate.absolute())
    words = [python, __file__, "one", "--system", system, "--folder", str(folder), "--precision", precision]
    words += ["--threads", str(arguments.threads), "--batches", "1", "--steps", str(arguments.steps)]
    words += ["--keep-no-graph"] if arguments.study == "memory" else []
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
    if system != "embfit":
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train in this process: the first loss, pairs a second, memory, and for embfit MaxSim's share."""
    import torch
    from measuring import AnonymousMemory

    torch.set_num_threads(arguments.threads)
    said = json.loads((arguments.folder / "pairs.json").read_text())
    batch, texts = said["batch"], said["texts"]
    bf16 = arguments.precision == "bf16"
    if arguments.system == "embfit":
        train: Any = partial(train_embfit, memory_gb=0 if arguments.keep_no_graph else None)
    else:
        train = partial(train_pylate, arguments.system)
    ends: list[tuple[float, float]] = []  # of each step, by the CPU and by the clock
    with AnonymousMemory() as memory:
        found = train(
            texts, batch, arguments.folder, bf16, lambda: ends.append((time.process_time(), time.perf_counter()))
        )
    taken, passed = (last - first for first, last in zip(ends[0], ends[-1], strict=True))
    found["pairs_per_second"] = round(batch * arguments.steps / passed, 2)
    found["pairs_per_cpu_second"] = round(batch * arguments.steps / taken, 2)
    if "maxsim" in found:
        found["maxsim_share"] = round(found.pop("maxsim") / taken, 4)
    return {**found, "peak_megabytes": round((memory.most - memory.before) / 2**20)}


def train_embfit(
    texts: list[Any],
    batch: int,
    folder: Path,
    bf16: bool,
    after_step: Callable[[], None],
    memory_gb: float | None = None,
) -> dict[str, Any]:
    """Train with embfit's engine, which adds up what MaxSim takes."""
    import pytorch_lightning as pl
    from training_systems import training_set

    from embfit import maxsim
    from embfit.loss import InfoNCE
    from embfit.model import LateInteraction
    from embfit.store import Store
    from embfit.training import Training

    spent: list[float] = []
    steps: list[int] = [0]

    def timed(compute: Callable[..., Any]) -> Any:
        def measured(*of: Any) -> Any:
            before = time.process_time()
            done = compute(*of)
            if steps[0]:  # not in the step that warms up
                spent.append(time.process_time() - before)
            return done

        return staticmethod(measured)

    maxsim._HighestProducts.forward = timed(maxsim._HighestProducts.forward)  # type: ignore[method-assign]
    maxsim._HighestProducts.backward = timed(maxsim._HighestProducts.backward)  # type: ignore[method-assign]

    class Steps(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: object) -> None:
            steps[0] += 1
            after_step()

    precision: Any = "bf16" if bf16 else "fp32"
    encoder = LateInteraction(str(folder / "model"), precision=precision).load("cpu")
    first = in_batch_loss(encoder, texts[:batch])  # training draws its batches in another order
    steps_wanted = len(texts) // batch
    training = Training(
        steps=steps_wanted, batch_size=batch, lr=RATE, precision=precision, memory_gb=memory_gb, warmup=0.0
    )
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False, callbacks=[Steps()])
    store = Store(enabled=False)
    with tempfile.TemporaryDirectory(dir=folder) as checkpoints:  # a second run must not find those of the first
        training.fit(encoder, InfoNCE(TEMPERATURE), training_set(texts), None, trainer, store, Path(checkpoints))
    return {"first_loss": round(first, 4), "maxsim": sum(spent)}


def in_batch_loss(encoder: Any, texts: list[Any]) -> float:
    """Return the loss of some pairs as one batch: cross-entropy of mean MaxSim over all of their documents."""
    import numpy as np

    queries = encoder.embed([query for query, _, _ in texts], "query")
    others = [text for _, _, negatives in texts for text in negatives]
    documents = encoder.embed([document for _, document, _ in texts] + others, "document")
    scores = queries.scores(documents).astype(np.float64) / TEMPERATURE  # [Q, D], the positives on the diagonal
    return float((np.logaddexp.reduce(scores, axis=1) - scores.diagonal()).mean())


def train_pylate(
    system: str, texts: list[Any], batch: int, folder: Path, bf16: bool, after_step: Callable[[], None]
) -> dict[str, Any]:
    """Train with PyLate's losses and its collator's way to tokenise, without the Trainer around them.

    In bf16 the model's forward pass runs under autocast and gives fp32, as accelerate has it under the Trainer.
    """
    import torch
    from pylate import losses, models

    model = models.ColBERT(str(folder / "model"), device="cpu")
    if bf16:
        from accelerate.utils import convert_to_fp32

        forward = model.forward

        def in_bf16(*of: Any, **named: Any) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return convert_to_fp32(forward(*of, **named))

        model.forward = in_bf16
    temperature = TEMPERATURE * LENGTHS["query_length"]
    loss = (
        losses.CachedContrastive(model, mini_batch_size=8, temperature=temperature)
        if "Cached" in system
        else losses.Contrastive(model, temperature=temperature)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # as embfit trains
    first = None
    for start in range(0, len(texts), batch):
        some = texts[start : start + batch]
        columns = [[query for query, _, _ in some], [document for _, document, _ in some]]
        columns += [[negatives[place] for _, _, negatives in some] for place in range(len(some[0][2]))]
        features = [model.tokenize(column, is_query=place == 0, pad=True) for place, column in enumerate(columns)]
        value = loss(features)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        first = value.item() if first is None else first
        after_step()
    return {"first_loss": round(float(first or 0), 4)}


if __name__ == "__main__":
    main()
