"""A training step queues its work and waits for nothing: counted on a GPU that is pretended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerFast

from embfit.loss import KL, Binary, Distillation, InfoNCE, Listwise, MarginMSE, Matryoshka
from embfit.model import CrossEncoder, Encoder
from embfit.records import Collection, TrainingSet
from embfit.training.batches import EpochBatches, ExampleArrays
from embfit.training.grouping import RandomGrouping
from embfit.training.guide import Guide
from embfit.training.in_batch import InBatch, InBatchData
from embfit.training.lists import EpochLists, ListData, Lists
from embfit.training.step import loss_parts
from embfit.training.step.gradients import ComputeSettings
from embfit.training.step.memory import GraphLimit
from embfit.training.step.module import TrainingModule
from embfit.training.step.optimization import Optimization
from embfit.vectors import Vectors
from tests.conftest import new_encoder, new_late_encoder, new_ranker
from tests.training.step.pretended_gpu import GPU, PretendedGpu, Wait, pretended_gpu

MOVING = Optimization(lr=1e-3, loss_lr=1e-2, weight_decay=0.01, warmup=0.0, schedule="linear", clip_norm=1.0, steps=3)
COMPUTE = ComputeSettings(64, memory_gb=1.0, dropout=False, precision="fp32", seed=0)  # a few texts a micro-batch


@pytest.fixture
def training_set(small_collection: Collection) -> TrainingSet:
    """Eight examples with two negatives each, all of which a teacher has scored."""
    rows: Mapping[str, Any] = {
        "query": list(range(8)),
        "positives": [[row] for row in range(8)],
        "negatives": [[row + 1, row + 2] for row in range(8)],
        "scores": [[3.0 + row, 1.0, 0.5] for row in range(8)],
        "weight": [1.0] * 8,
        "source": ["test"] * 8,
    }
    return TrainingSet(small_collection, Dataset.from_dict(rows), {row: frozenset([row]) for row in range(8)})


def in_batch(encoder: Encoder, loss: nn.Module, training_set: TrainingSet, guided: bool = False) -> InBatch:
    collection = training_set.collection
    queries = encoder.tokenize(collection.query_texts(), "query")
    documents = encoder.tokenize(collection.document_texts(), "document")
    guide = None
    if guided:
        vectors = [np.eye(12, dtype=np.float32)] * 2
        guide = Guide(np.arange(12), Vectors(vectors[0]), Vectors(vectors[1]), margin=0.0, fingerprint="eye")
    examples, grouping = ExampleArrays(training_set, 8), RandomGrouping(8, 8)
    return InBatch(encoder, loss, InBatchData(examples, queries, documents, grouping, guide), MOVING, COMPUTE)


def lists(ranker: CrossEncoder, loss: nn.Module, training_set: TrainingSet) -> Lists:
    collection = training_set.collection
    queries, documents = ranker.tokenize(collection.query_texts()), ranker.tokenize(collection.document_texts())
    return Lists(ranker, loss, ListData(ExampleArrays(training_set, 1), queries, documents, 8, 2), MOVING, COMPUTE)


def steps(module: TrainingModule, batch: Any, monkeypatch: pytest.MonkeyPatch, count: int = 3) -> PretendedGpu:
    """Take steps on a pretended GPU, half of whose graphs are kept; what the first one waits for is not counted."""
    prepared = module.prepare(batch)
    monkeypatch.setattr(GraphLimit, "kept", lambda self, areas, *rest: len(areas) // 2)
    module._trainer = SimpleNamespace(log_every_n_steps=1, loggers=[], global_step=0, current_epoch=0)  # type: ignore[assignment]
    with pretended_gpu(monkeypatch) as gpu:
        module.to(GPU)
        optimizers, schedules = module.configure_optimizers()
        stand_in = SimpleNamespace(optimizer=optimizers[0], step=optimizers[0].step, zero_grad=optimizers[0].zero_grad)
        monkeypatch.setattr(module, "optimizers", lambda: stand_in)
        monkeypatch.setattr(module, "lr_schedulers", lambda: schedules[0])
        for number in range(count):
            if number == 1:
                gpu.waits.clear()
                gpu.computed = 0
            module.training_step(prepared, number)
        assert all(weight.device == GPU and weight.grad is None for weight in module.encoder.parameters())
        assert module.steps_taken == count
    return gpu


def assert_nothing_waits(gpu: PretendedGpu) -> None:
    """Hold that only transformers waits, whose SDPA asks of each mask whether it masks."""
    assert set(gpu.waits) <= {Wait("aten::_local_scalar_dense", "transformers")}
    assert gpu.computed > 500


def test_what_waits_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: Mapping[str, Callable[[torch.Tensor], object]] = {
        "aten::_local_scalar_dense": lambda one: one.sum().item(),
        "a boolean mask": lambda one: one[one > 0],
        "an index on the CPU": lambda one: one[torch.tensor([1, 2])],
        "aten::nonzero": lambda one: one.nonzero(),
        "aten::equal": lambda one: torch.equal(one, one),
        "aten::copy_": lambda one: one.copy_(torch.ones(4)),
        "to the CPU": lambda one: one.cpu(),
        "to the GPU": lambda one: torch.ones(3).to(one.device, non_blocking=True),  # not from pinned memory
    }
    with pretended_gpu(monkeypatch) as gpu:
        numbers = torch.ones(4).pin_memory().to(GPU, non_blocking=True)
        sums = torch.zeros((), device=GPU) + numbers.sum() + torch.arange(4, device=numbers.device)[2]
        found = torch.empty((), pin_memory=True).copy_(sums, non_blocking=True)
        assert (sums.device, found.device.type, found.item()) == (GPU, "cpu", 6.0)
        assert gpu.waits == []
        for name, wait in waiting.items():
            gpu.waits.clear()
            wait(numbers)
            assert gpu.waited_by("tests") == [name]
        with pytest.raises(RuntimeError, match="tensors of the CPU and of the GPU"):
            numbers + torch.ones(4)


@pytest.mark.parametrize("pairs", [2**23, 40], ids=["one part", "in parts"])
@pytest.mark.parametrize(
    "loss",
    [
        InfoNCE(),
        InfoNCE(learn_temperature=True, symmetric=True, hardness=0.5, query_query=True, document_document=True),
        Matryoshka(InfoNCE(), [8, 16, 32], dims_per_step=2),
        Distillation(KL(), MarginMSE()),
        MarginMSE(),
    ],
    ids=["infonce", "all of infonce", "mrl", "distill", "margin-mse"],
)
def test_a_step_waits_for_nothing(
    loss: nn.Module,
    pairs: int,
    tokenizer: PreTrainedTokenizerFast,
    training_set: TrainingSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss_parts, "PAIRS", pairs)
    module = in_batch(new_encoder(tokenizer), loss, training_set, guided=isinstance(loss, InfoNCE))
    gpu = steps(module, EpochBatches(module.data.examples, module.data.grouping, seed=0, epoch=0)[0], monkeypatch)
    assert_nothing_waits(gpu)


@pytest.mark.parametrize("loss", [InfoNCE(), Matryoshka(InfoNCE(), [8, 16])], ids=["infonce", "mrl"])
def test_late_interaction_waits_for_nothing(
    loss: nn.Module, tokenizer: PreTrainedTokenizerFast, training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = in_batch(new_late_encoder(tokenizer), loss, training_set)
    gpu = steps(module, EpochBatches(module.data.examples, module.data.grouping, seed=0, epoch=0)[0], monkeypatch)
    assert_nothing_waits(gpu)


@pytest.mark.parametrize("loss", [Listwise(), Binary(2.0)], ids=["listwise", "binary"])
def test_lists_wait_for_nothing(
    loss: nn.Module, tokenizer: PreTrainedTokenizerFast, training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = lists(new_ranker(tokenizer), loss, training_set)
    gpu = steps(module, EpochLists(module.data.examples, 8, 2, 0, 0)[0], monkeypatch)
    assert_nothing_waits(gpu)


def test_a_wait_in_a_loss_is_counted(
    tokenizer: PreTrainedTokenizerFast, training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asking(InfoNCE):
        def forward(self, *given: Any) -> torch.Tensor:
            loss = super().forward(*given)
            return loss if loss.item() > 0 else loss * 2

    module = in_batch(new_encoder(tokenizer), Asking(), training_set)
    gpu = steps(module, EpochBatches(module.data.examples, module.data.grouping, seed=0, epoch=0)[0], monkeypatch)
    assert gpu.waited_by("tests") == ["aten::_local_scalar_dense"] * 2  # once in each of the two steps that count
