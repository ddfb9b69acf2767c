"""Trains the tiny encoder on one rank and on two, and writes what both did; `test_launch.py` runs it, with a limit.

It is run as two processes, of which the second waits for what the first one trains, as torchrun's do: so many trainings
take the time of one start. The cases of `OWN` are about processes that a training starts by itself. All are forked from
one that has imported what they need.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytorch_lightning as pl
import torch
from datasets import Dataset
from torch import distributed

from embfit.launcher.distributed import on_first_rank
from embfit.loss import InfoNCE, Matryoshka
from embfit.model import BiEncoder, Encoder
from embfit.model.lora import LoRA, attach
from embfit.records import TrainingSet
from embfit.run.child_process import ChildProcess
from embfit.run.devices import find_devices
from embfit.store import Store
from embfit.training import Training
from embfit.training.batches import EpochBatches, ExampleArrays
from embfit.training.fit.loop import Job, run
from embfit.training.grouping import RandomGrouping, Topical
from embfit.training.guide import make_guide
from embfit.training.in_batch import InBatch, InBatchData
from embfit.training.ranks import worker  # noqa: F401  # which the ranks that a training starts run
from embfit.training.ranks.launch import launch_ranks
from embfit.training.step.gradients import ComputeSettings
from embfit.training.step.optimization import Optimization
from tests.conftest import TEXTS, make_collection, new_encoder, new_late_encoder, new_tokenizer, steady
from tests.template_process import TemplateProcess

STILL = Optimization(lr=0.0, loss_lr=0.0, weight_decay=0.0, warmup=0.0, schedule="constant", clip_norm=None, steps=3)
ONE = {"accelerator": "cpu", "devices": 1, "logger": False}
TWO = ONE | {"devices": 2, "strategy": "ddp"}
STARTED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # what torchrun tells the processes that it starts


@contextmanager
def alone() -> Iterator[None]:
    """Hide the second process, so that a training on two ranks starts one of its own."""
    hidden = {name: os.environ.pop(name) for name in STARTED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def training_set() -> TrainingSet:
    """Eleven examples of uneven length, some with a negative: batches of 4, 4 and 3."""
    documents = {f"d{row}": text for row, text in enumerate(TEXTS)}
    queries = {f"q{row}": " ".join(text.split()[: 2 + row % 5]) for row, text in enumerate(TEXTS)}
    rows = [
        {
            "query": row,
            "positives": [row],
            "negatives": [row + 1] if row % 2 else [],
            "scores": [],
            "weight": 1.0 + row % 2,
            "source": "test",
        }
        for row in range(11)
    ]
    return TrainingSet(make_collection(documents, queries, {}), Dataset.from_list(rows), {})


TOKENIZER = new_tokenizer()  # once: training one breaks ties at random


def encoder(dropout: float) -> Encoder:
    return new_encoder(TOKENIZER, dropout)


class Routed(BiEncoder):
    """Has an expert that only one text is sent to."""

    def __init__(self, plain: Encoder, text: np.ndarray) -> None:
        super().__init__(plain.backbone, plain.tokenizer, plain.settings)
        self.expert = torch.nn.Parameter(torch.linspace(-1, 1, self.width))
        self.text = text.tolist()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, bf16: bool = False) -> torch.Tensor:
        vectors = super().forward(input_ids, attention_mask, bf16)
        texts = [ids[mask > 0].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]
        if self.text in texts:
            sent = torch.tensor([[text == self.text] for text in texts])
            vectors = torch.where(sent, vectors + self.expert, vectors)
        return vectors


def steps(
    settings: dict,
    loss: torch.nn.Module,
    token_budget: int,
    dropout: bool,
    folder: Path,
    guided: bool = False,
    memory_gb: float | None = None,
    adapted: bool = False,
    routed: bool = False,
    late: bool = False,
) -> list[dict]:
    """Return the loss and all gradients of three steps at rest.

    They are guided in topical batches, of an adapter alone, with an expert that the second step alone reaches, or of
    late interaction.
    """
    found = training_set()
    model = new_late_encoder(TOKENIZER, 0.3) if late else encoder(0.3)
    if adapted:
        attach(model.backbone, LoRA(rank=2, dropout=0.3), 0, "base", None)
        for name, weight in model.backbone.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(weight, 0.1)  # at zero, where it begins, the other half has no gradient
    collection = found.collection
    store, grouping, guide = Store(folder / "store"), RandomGrouping(11, 4), None
    if guided:
        guide = make_guide("base", 0.0, model, collection, np.arange(11), store)
        grouping = Topical(guide.queries.means(), 4)
    if routed:
        second = EpochBatches(ExampleArrays(found, 8), grouping, 0, 0)[1]
        query = model.tokenize(collection.query_texts(), "query").take(second.queries[:1])
        model = Routed(model, query.ids)
    data = InBatchData(
        ExampleArrays(found, 8),
        model.tokenize(collection.query_texts(), "query"),
        model.tokenize(collection.document_texts(), "document"),
        grouping,
        guide,
    )
    compute = ComputeSettings(token_budget, memory_gb, dropout=dropout, precision="fp32", seed=0)
    module = InBatch(model, loss, data, STILL, compute)
    devices = find_devices(settings, None)
    taken: list[dict] = []
    job = Job(module, devices.settings(settings, 0), 3, folder)
    with launch_ranks(job, devices) as ranks:
        move = module._move

        def watch(loss: torch.Tensor) -> torch.Tensor:
            gradients = {name: w.grad.clone() for name, w in module.named_parameters() if w.grad is not None}
            taken.append({"loss": loss.clone(), **gradients})
            return move(loss)

        module._move = watch
        run(job, ranks)
    return taken


def fitted(settings: dict, folder: Path) -> dict:
    """Return what a training that stops on a plateau leaves."""
    model = encoder(0.0)
    scores = iter([0.1, 0.2, 0.5, 0.4, 0.3, 0.9])
    training = Training(
        batch_size=4 // settings["devices"], lr=1e-3, epochs=9, patience=2, precision="fp32", validations_per_epoch=1
    )
    trainer = partial(pl.Trainer, **settings)
    validate = lambda encoder: steady(next(scores))  # noqa: E731
    fit = training.fit(model, InfoNCE(), training_set(), validate, trainer, Store(folder / "store"), folder)
    return {
        "stopped": fit.stopped,
        "steps": fit.steps,
        "kept_step": fit.kept_step,
        "vectors": torch.from_numpy(model.encode(TEXTS, "document")),
    }


class Dying(InfoNCE):
    """Fails on the second rank alone."""

    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        if distributed.is_initialized() and distributed.get_rank() == 1:
            raise MemoryError("no more")
        return super().forward(*arguments)


class Killed(InfoNCE):
    """Its process is killed on the second rank alone, as by a system without memory."""

    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        if distributed.is_initialized() and distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(*arguments)


class KilledEarly(InfoNCE):
    """A process that is handed it is killed."""

    def __setstate__(self, state: dict) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def strange() -> InfoNCE:
    """Return a loss that no other process can import."""
    sys.modules["only_here"] = module = ModuleType("only_here")
    module.Strange = type("Strange", (InfoNCE,), {"__module__": "only_here"})  # type: ignore[attr-defined]
    return module.Strange()


def failing(settings: dict, folder: Path, loss: torch.nn.Module | None = None, lr: float = 1e30) -> str:
    """Return the error of a training, whose loss becomes NaN on every rank unless another loss and rate are given."""
    try:
        training = Training(batch_size=2, lr=lr, clip_norm=None, warmup=0.0, epochs=9, precision="fp32")
        trainer = partial(pl.Trainer, **settings)
        training.fit(encoder(0.0), loss or InfoNCE(), training_set(), None, trainer, Store(folder / "store"), folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def lost(settings: dict, folder: Path) -> dict[str, str]:
    """Return the errors of trainings of which a rank is lost."""
    losses = {"strange": strange(), "killed early": KilledEarly(), "killed": Killed()}
    for name in losses:
        (folder / name).mkdir()
    return {name: failing(settings, folder / name, loss, 1e-3) for name, loss in losses.items()}


class Kill(pl.Callback):
    """Ends the first rank after its fifth step."""

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: object) -> None:
        if trainer.global_step == 5:
            raise KeyError("killed")


def resumed(settings: dict, folder: Path) -> list[torch.Tensor]:
    """Return the vectors of a training without an interruption, and of one with it, whose ranks are its own."""

    def fit(name: str, callbacks: list[pl.Callback]) -> torch.Tensor:
        model = encoder(0.3)
        training = Training(batch_size=2, lr=1e-3, steps=9, precision="fp32", dropout=True, checkpoint_every=2)
        trainer = partial(pl.Trainer, **settings, callbacks=callbacks)
        (folder / name).mkdir(exist_ok=True)
        training.fit(model, InfoNCE(), training_set(), None, trainer, Store(folder / "store"), folder / name)
        return torch.from_numpy(model.encode(TEXTS, "document"))

    whole = fit("whole", [])
    with alone():
        with suppress(KeyError):
            fit("killed", [Kill()])
        return [whole, fit("killed", [])]


def at_rest(settings: dict, folder: Path) -> dict[str, list[dict]]:
    """Return the loss and all gradients of three steps in every way of computing them."""
    return {
        "micro-batches": steps(settings, InfoNCE(0.1, True), 40, True, folder),
        "none kept": steps(settings, InfoNCE(0.1, True), 40, True, folder, memory_gb=0),
        "adapter": steps(settings, InfoNCE(), 40, True, folder, adapted=True),
        "one micro-batch": steps(settings, Matryoshka(InfoNCE(symmetric=True), [8, 32]), 9999, False, folder),
        "late interaction": steps(settings, InfoNCE(), 60, True, folder, guided=True, memory_gb=0, late=True),
        "guided, topical, an expert": steps(settings, InfoNCE(), 40, True, folder, guided=True, routed=True),
    }


CASES = {
    "at rest": at_rest,
    "resumed": resumed,
    "fit": fitted,
    "failing": failing,
    "lost": lost,
    "dying": lambda settings, folder: failing(settings, folder, Dying(), 1e-3),
}

OWN = ("failing", "lost", "dying")


def write_cases(folder: Path) -> None:
    """Write what each case did on one rank and on two into a folder of its own, or the traceback of its failure."""
    for name, case in CASES.items():
        found = {}
        try:
            for ranks, settings in ((1, ONE), (2, TWO)):
                place = folder / name / str(ranks)
                place.mkdir(parents=True)
                with alone() if ranks == 1 or name in OWN else nullcontext():
                    found[ranks] = case(settings, place)
        except Exception:
            (folder / name / "failure.txt").write_text(traceback.format_exc())
        else:
            torch.save(found, folder / name / "found.pt")


def main(arguments: list[str]) -> None:
    """Write the cases as the first process, and train with it as the second."""
    on_first_rank(partial(write_cases, Path(arguments[0])))


if __name__ == "__main__":
    from tests.training.ranks import two_ranks  # under the name by which other ranks find what is in here

    template = TemplateProcess()

    def start(cls: type[ChildProcess], module: str, arguments: list[str], words: Path) -> ChildProcess:
        return cls(template.start(module, arguments, words), words)

    ChildProcess.start = classmethod(start)
    os.environ |= {"RANK": "1", "LOCAL_RANK": "1"}
    second = template.start(two_ranks.__name__, sys.argv[1:], Path(sys.argv[1]) / "1.txt")
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0"}
    two_ranks.main(sys.argv[1:])
    sys.exit(second.wait(60))
