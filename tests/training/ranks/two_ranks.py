"""Trains the tiny encoder on one rank and on two, and writes the results, which `test_launch.py` compares.

`test_launch.py` starts this script as two processes, like torchrun, with a time limit. The processes live for all
trainings, because starting one takes longer than a training. They are forked from a process that has imported
everything. In the cases of `SHARDED`, two ranks with a shard of each weight are compared with two that have all
weights. In the cases of `OWN`, a training starts its second process itself.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytorch_lightning as pl
import torch
from datasets import Dataset
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor
from transformers import MistralConfig, MistralModel, Qwen3MoeConfig, Qwen3MoeModel

from embfit.launcher.distributed import on_first_rank
from embfit.loss import InfoNCE, Listwise, Matryoshka
from embfit.model import BiEncoder, Encoder
from embfit.model.layers import freeze
from embfit.model.lora import LoRA, attach
from embfit.records import TrainingSet
from embfit.run.child_process import ChildProcess
from embfit.run.devices import find_devices
from embfit.store import Store
from embfit.training import ListTraining, Training
from embfit.training.batches import EpochBatches, ExampleArrays
from embfit.training.fit.loop import Job, run
from embfit.training.grouping import RandomGrouping, Topical
from embfit.training.guide import make_guide
from embfit.training.in_batch import InBatch, InBatchData
from embfit.training.ranks import sharding, worker  # noqa: F401  # which the ranks that a training starts run
from embfit.training.ranks.launch import launch_ranks
from embfit.training.step.gradients import ComputeSettings
from embfit.training.step.optimization import Optimization
from tests.conftest import TEXTS, make_collection, new_encoder, new_late_encoder, new_ranker, new_tokenizer, steady
from tests.template_process import TemplateProcess

STILL = Optimization(lr=0.0, loss_lr=0.0, weight_decay=0.0, warmup=0.0, schedule="constant", clip_norm=None, steps=3)
CLIPPED = replace(STILL, clip_norm=0.5)
ONE = {"accelerator": "cpu", "devices": 1, "logger": False}
TWO = ONE | {"devices": 2, "strategy": "ddp"}
SHARES = TWO | {"strategy": "fsdp"}
STARTED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # variables that torchrun sets for its processes


@contextmanager
def alone() -> Iterator[None]:
    """Hide the second process, so that a training on two ranks starts a process itself."""
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


def bf16_decoder() -> Encoder:
    """Return a two-layer decoder whose weights are bf16, the same each time."""
    plain = encoder(0.0)
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return BiEncoder(MistralModel(config).bfloat16(), TOKENIZER, plain.settings, source="tiny decoder").eval()


def mixture() -> Encoder:
    """Return a two-layer mixture of four experts, which are one weight, the same each time."""
    plain = encoder(0.0)
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=1,
    )
    return BiEncoder(Qwen3MoeModel(config), TOKENIZER, plain.settings, source="tiny mixture").eval()


class Routed(BiEncoder):
    """Adds an expert that computes only one text."""

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


class Watched(InBatch):
    """Records the loss, the norm and the clipped gradients of each step; sharded gradients are gathered."""

    taken: list[dict]

    def _update(self, loss: Tensor) -> Tensor:
        gradients = {}

        def note(*given: object) -> None:
            weights = {name: weight for name, weight in self.named_parameters() if weight.grad is not None}
            gradients.update({name: whole(weight.grad).clone() for name, weight in weights.items()})

        hook = self.trainer.optimizers[0].register_step_pre_hook(note)
        norm = super()._update(loss)
        hook.remove()
        self.taken.append({"loss": loss.clone(), "norm": norm, **gradients})
        return norm


class GatheredInBf16(Watched):
    """Gathers its layers in bf16, as ranks with GPUs do."""

    def begin(self, *arguments: Any) -> None:
        with patch.object(sharding, "GATHERS_IN_BF16", ("cpu",)):
            super().begin(*arguments)
        adapters = [part for name, part in self.encoder.named_modules() if name.endswith("lora_A.default")]
        self.formats = dict.fromkeys(adapters, torch.float32)
        for part in adapters:
            part.register_forward_pre_hook(lambda part, given: self.formats.update({part: part.weight.dtype}))

    def on_train_end(self) -> None:
        expected = torch.bfloat16 if self.ranks.sharded else torch.float32
        if set(self.formats.values()) != {expected}:
            raise ValueError(f"adapters compute with {set(self.formats.values())}")
        super().on_train_end()


class Weighed(InBatch):
    """Records the bytes that each rank holds after a step, and the bytes that it expects for a token's graph."""

    taken: list[dict]

    def _update(self, loss: Tensor) -> Tensor:
        encoder = self.encoder
        held = {"weights": held_bytes(list(encoder.parameters()))}
        held["gradients"] = held_bytes([weight.grad for weight in encoder.parameters() if weight.grad is not None])
        norm = super()._update(loss)
        state = self.trainer.optimizers[0].state
        held["moments"] = held_bytes([found[name] for found in state.values() for name in ("exp_avg", "exp_avg_sq")])
        every: list[dict] = [{}] * distributed.get_world_size()
        distributed.all_gather_object(every, held)
        self.taken.append({"ranks": every, "graph": self._gradients._graphs._per_token})
        return norm


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def held_bytes(tensors: list[Tensor]) -> int:
    """Return the bytes of the storages of tensors, or of this rank's parts of them."""
    local = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return sum({part.untyped_storage()._cdata: part.untyped_storage().nbytes() for part in local}.values())


def steps(
    settings: dict,
    loss: torch.nn.Module,
    token_budget: int,
    dropout: bool,
    folder: Path,
    guided: bool = False,
    memory_gb: float | None = None,
    adapted: int = 0,
    frozen: int = 0,
    checkpointing: bool = False,
    routed: bool = False,
    late: bool = False,
    precision: str = "fp32",
    made: Callable[[], Encoder] | None = None,
    kind: type[InBatch] = Watched,
    optimization: Optimization = STILL,
) -> list[dict]:
    """Return the loss and all gradients of three steps that leave the weights unchanged.

    Args:
        settings: the trainer's.
        loss: the loss.
        token_budget: the padded tokens of a micro-batch.
        dropout: whether dropout is on.
        folder: the folder of the store.
        guided: whether a guide removes false negatives, in topical batches.
        memory_gb: the memory for kept graphs.
        adapted: the rank of a LoRA adapter that is trained; 0 for none.
        frozen: the number of lowest layers that are frozen.
        checkpointing: whether layers are computed again in the backward pass.
        routed: whether the encoder has an expert that only the second step uses.
        late: whether it is a late-interaction encoder.
        precision: the number format.
        made: makes another encoder.
        kind: the training module, which records the steps.
        optimization: the optimizer's settings.
    """
    found = training_set()
    model = new_late_encoder(TOKENIZER, 0.3) if late else encoder(0.3) if made is None else made()
    if adapted:
        attach(model.backbone, LoRA(rank=adapted, dropout=0.3), 0, "base", None)
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
    freeze(model.backbone, False, frozen)
    compute = ComputeSettings(token_budget, memory_gb, dropout, precision, 0, checkpointing)
    module = kind(model, loss, data, optimization, compute)
    module.taken = []
    devices = find_devices(settings, None)
    job = Job(module, devices.settings(settings, 0), 3, folder)
    with launch_ranks(job, devices) as ranks:
        run(job, ranks)
    return module.taken


def fitted(settings: dict, folder: Path) -> dict:
    """Return the results of a training that stops on a plateau."""
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
    """Fails only on the second rank."""

    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        if distributed.is_initialized() and distributed.get_rank() == 1:
            raise MemoryError("no more")
        return super().forward(*arguments)


class Killed(InfoNCE):
    """Kills its process, only on the second rank, as a system that is out of memory does."""

    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        if distributed.is_initialized() and distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(*arguments)


class KilledEarly(InfoNCE):
    """Kills the process that unpickles it."""

    def __setstate__(self, state: dict) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def strange() -> InfoNCE:
    """Return a loss that no other process can import."""
    sys.modules["only_here"] = module = ModuleType("only_here")
    module.Strange = type("Strange", (InfoNCE,), {"__module__": "only_here"})  # type: ignore[attr-defined]
    return module.Strange()


def mined_again(settings: dict, folder: Path) -> list[Tensor]:
    """Return the vectors that a training mines with after its first and second epoch, and its final vectors."""
    seen = []

    def remine(encoder: Encoder) -> TrainingSet:
        seen.append(torch.from_numpy(encoder.encode(TEXTS, "document")))
        return training_set()

    model, trainer = encoder(0.0), partial(pl.Trainer, **settings)
    training = Training(batch_size=2, lr=1e-3, epochs=3, precision="fp32", remine_every=1)
    training.fit(model, InfoNCE(), training_set(), None, trainer, Store(folder / "store"), folder, remine)
    return [*seen, torch.from_numpy(model.encode(TEXTS, "document"))]


def ranked(settings: dict, folder: Path) -> Tensor:
    """Return the scores of a cross-encoder after two epochs."""
    ranker, trainer = new_ranker(TOKENIZER), partial(pl.Trainer, **settings)
    training = ListTraining(batch_size=2, lr=1e-4, epochs=2, precision="fp32", token_budget=80)
    training.fit(ranker, Listwise(), training_set(), None, trainer, Store(folder / "store"), folder)
    return torch.from_numpy(ranker.score([(TEXTS[0], text) for text in TEXTS]))


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
    """Return the errors of trainings that lose a rank."""
    losses = {"strange": strange(), "killed early": KilledEarly(), "killed": Killed()}
    for name in losses:
        (folder / name).mkdir()
    return {name: failing(settings, folder / name, loss, 1e-3) for name, loss in losses.items()}


class Kill(pl.Callback):
    """Ends the first rank's process after its fifth step."""

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: object) -> None:
        if trainer.global_step == 5:
            raise KeyError("killed")


def resumed(settings: dict, folder: Path, before: dict | None = None) -> list[torch.Tensor]:
    """Return the vectors of an uninterrupted training, and of an interrupted and resumed one with ranks of its own.

    Args:
        settings: the trainer's.
        folder: the folder of the checkpoints.
        before: other settings until the interruption; None for the same.
    """

    def fit(name: str, callbacks: list[pl.Callback], settings: dict = settings) -> torch.Tensor:
        model = encoder(0.3)
        training = Training(batch_size=2, lr=1e-3, steps=9, precision="fp32", dropout=True, checkpoint_every=2)
        trainer = partial(pl.Trainer, **settings, callbacks=callbacks)
        (folder / name).mkdir(exist_ok=True)
        training.fit(model, InfoNCE(), training_set(), None, trainer, Store(folder / "store"), folder / name)
        return torch.from_numpy(model.encode(TEXTS, "document"))

    whole = fit("whole", [])
    with alone():
        with suppress(KeyError):
            fit("killed", [Kill()], before or settings)
        return [whole, fit("killed", [])]


def at_rest(settings: dict, folder: Path) -> dict[str, list[dict]]:
    """Return the loss and all gradients of three steps in every way of computing them."""
    return {
        "micro-batches": steps(settings, InfoNCE(0.1, True), 40, True, folder),
        "none kept": steps(settings, InfoNCE(0.1, True), 40, True, folder, memory_gb=0),
        "adapter": steps(settings, InfoNCE(), 40, True, folder, adapted=2),
        "one micro-batch": steps(settings, Matryoshka(InfoNCE(symmetric=True), [8, 32]), 9999, False, folder),
        "late interaction": steps(settings, InfoNCE(), 60, True, folder, guided=True, memory_gb=0, late=True),
        "guided, topical, an expert": steps(settings, InfoNCE(), 40, True, folder, guided=True, routed=True),
    }


def in_shards(settings: dict, folder: Path) -> dict[str, list[dict]]:
    """Return the same for ranks with sharded weights, where one rank has fewer micro-batches than the other."""
    return {
        "micro-batches": steps(settings, InfoNCE(0.1, True), 40, True, folder, optimization=CLIPPED),
        "none kept": steps(settings, InfoNCE(0.1, True), 40, True, folder, memory_gb=0),
        "adapter": steps(settings, InfoNCE(), 40, True, folder, adapted=2),
        "adapter of one row": steps(
            settings, InfoNCE(), 40, True, folder, adapted=1, checkpointing=True, optimization=CLIPPED
        ),
        "frozen layer": steps(settings, InfoNCE(), 40, True, folder, memory_gb=0, frozen=1, checkpointing=True),
        "one micro-batch": steps(settings, InfoNCE(), 9999, False, folder),
        "late interaction": steps(settings, InfoNCE(), 60, True, folder, guided=True, memory_gb=0, late=True),
        "bf16": steps(settings, InfoNCE(), 40, False, folder, precision="bf16"),
        "bf16 adapter": steps(
            settings, InfoNCE(), 40, False, folder, adapted=2, precision="bf16", kind=GatheredInBf16, made=bf16_decoder
        ),
        "experts": steps(settings, InfoNCE(0.2), 40, False, folder, memory_gb=0, made=mixture),
    }


def held(settings: dict, folder: Path) -> list[dict]:
    """Return the bytes that each rank holds after each of three steps."""
    return steps(settings, InfoNCE(), 40, False, folder, kind=Weighed)


CASES = {
    "at rest": at_rest,
    "resumed": resumed,
    "fit": fitted,
    "failing": failing,
    "lost": lost,
    "dying": lambda settings, folder: failing(settings, folder, Dying(), 1e-3),
    "in shards": in_shards,
    "fit in shards": fitted,
    "resumed in shards": resumed,
    "resumed in other shards": partial(resumed, before=TWO),
    "failing in shards": failing,
    "dying in shards": lambda settings, folder: failing(settings, folder, Dying(), 1e-3),
    "mined again in shards": mined_again,
    "ranked in shards": ranked,
    "killed in shards": lambda settings, folder: failing(settings, folder, Killed(), 1e-3),
    "held": held,
}

OWN = ("failing", "lost", "dying", "failing in shards", "dying in shards", "killed in shards")
SHARDED = ("held", *(name for name in CASES if name.endswith("shards")))


def write_cases(folder: Path) -> None:
    """Write what each case did in its two ways into a folder of its own, or the traceback of its failure."""
    for name, case in CASES.items():
        found = {}
        try:
            for ranks, settings in ((1, TWO), (2, SHARES)) if name in SHARDED else ((1, ONE), (2, TWO)):
                place = folder / name / str(ranks)
                place.mkdir(parents=True)
                with alone() if settings is ONE or name in OWN else nullcontext():
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
