"""An encoder with two vectors a text passes through the seams, of which none knows that there are two.

Nothing of embfit is changed for it: it overrides what the bi-encoder says of its vectors, and that is all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional

from embfit.loss import InfoNCE, Matryoshka
from embfit.model import BiEncoder, Encoder
from embfit.records import Collection, TrainingSet
from embfit.tokens import Tokens
from embfit.training.batches import Batch, EpochBatches, ExampleArrays
from embfit.training.grouping import RandomGrouping
from embfit.training.in_batch import InBatch, InBatchData
from embfit.training.step.gradients import ComputeSettings
from embfit.training.step.optimization import Optimization

STILL = Optimization(lr=0.0, loss_lr=0.0, weight_decay=0.0, warmup=0.0, schedule="constant", clip_norm=None, steps=1)


class TwoVectors(BiEncoder):
    """Gives a text the vector of a bi-encoder and, beside it, a learned turn of it."""

    def __init__(self, plain: Encoder) -> None:
        super().__init__(plain.backbone, plain.tokenizer, plain.settings)
        self.turn = nn.Parameter(torch.linspace(-1, 1, self.width))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, bf16: bool = False) -> Tensor:
        """Embed token ids: [N, L] → [2 N, W]."""
        first = super().forward(input_ids, attention_mask, bf16)
        second = functional.normalize(first.roll(1, dims=1) * self.turn, dim=1)
        return torch.stack([first, second], dim=1).flatten(0, 1)

    def vector_counts(self, tokens: Tokens) -> np.ndarray:
        """Return two for each text."""
        return np.full(len(tokens), 2)


@pytest.fixture
def two_vectors(make_encoder: Callable[..., Encoder]) -> Callable[[], TwoVectors]:
    """Make the same encoder each time."""
    return lambda: TwoVectors(make_encoder(dropout=0.0))


@pytest.fixture
def training_set(small_collection: Collection) -> TrainingSet:
    """Eight examples, every other one with a negative."""
    rows = [
        {
            "query": row,
            "positives": [row],
            "negatives": [row + 1] if row % 2 else [],
            "scores": [],
            "weight": 1.0,
            "source": "test",
        }
        for row in range(8)
    ]
    return TrainingSet(small_collection, Dataset.from_list(rows), {row: frozenset([row]) for row in range(8)})


def dense(
    encoder: TwoVectors, training_set: TrainingSet, batch: Batch, dims: list[int]
) -> tuple[dict[str, Tensor], float]:
    """Return the gradients and the accuracy of late interaction written out, all pairs of vectors in one graph."""

    def embed(texts: list[str]) -> Tensor:
        inputs = encoder.tokenizer(texts, return_tensors="pt", padding=True)
        return encoder(inputs["input_ids"], inputs["attention_mask"]).view(len(texts), 2, -1)  # [N, 2, W]

    collection = training_set.collection
    queries = embed(list(collection.query_texts(batch.queries)))
    documents = embed(list(collection.document_texts(batch.documents)))
    labels = batch.relations.positives.float().argmax(dim=1)  # one positive each
    losses = []
    for dim in dims:
        ours, theirs = (functional.normalize(part[..., :dim], dim=-1) for part in (queries, documents))
        pairs = torch.einsum("qiw,djw->qdij", ours, theirs)
        scores = pairs.amax(dim=3).mean(dim=2)  # [Q, D]
        losses.append(functional.cross_entropy(scores / 0.05, labels))
    torch.stack(losses).mean().backward()
    return gradients(encoder), (scores.argmax(dim=1) == labels).float().mean().item()


def gradients(encoder: Encoder) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in encoder.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("memory_gb", [None, 0.0], ids=["kept", "not kept"])
@pytest.mark.parametrize(
    ("loss", "dims"), [(InfoNCE(), [32]), (Matryoshka(InfoNCE(), [8, 32]), [8, 32])], ids=["infonce", "mrl"]
)
def test_a_step_has_the_gradients_of_late_interaction_written_out(
    two_vectors: Callable[[], TwoVectors],
    training_set: TrainingSet,
    loss: nn.Module,
    dims: list[int],
    memory_gb: float | None,
) -> None:
    examples, grouping = ExampleArrays(training_set, 8), RandomGrouping(8, 8)
    batch = EpochBatches(examples, grouping, seed=0, epoch=0)[0]
    expected, accuracy = dense(two_vectors(), training_set, batch, dims)

    encoder = two_vectors()
    tokens = [
        encoder.tokenize(training_set.collection.query_texts(), "query"),
        encoder.tokenize(training_set.collection.document_texts(), "document"),
    ]
    compute = ComputeSettings(40, memory_gb, dropout=False, precision="fp32", seed=0)  # a few texts a micro-batch
    module = InBatch(encoder, loss, InBatchData(examples, *tokens, grouping), STILL, compute)
    found: dict[str, Tensor] = {}
    module._update = lambda loss: found.update(gradients(encoder)) or torch.zeros(())
    seen: list[float] = []
    module.record = lambda step, pairs, measured: seen.append(float(measured["train/accuracy"]))
    module.training_step(module.prepare(batch), 0)

    assert found.keys() == expected.keys()
    assert "turn" in found
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-5)
    assert seen == [pytest.approx(accuracy)]
