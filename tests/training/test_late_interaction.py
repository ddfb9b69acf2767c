"""Late interaction is trained by the engine that trains one vector a text, with the gradients of the plain formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from embfit.errors import ConfigError
from embfit.loss import KL, Distillation, InfoNCE, MarginMSE, Matryoshka
from embfit.model import LateInteraction, LateInteractionEncoder, LoRA, encoder_at, save_encoder
from embfit.records import Collection, TrainingSet
from embfit.store import Store
from embfit.tokens import ATTENDED, SCORED
from embfit.training import Fit, Training
from embfit.training.batches import Batch, EpochBatches, ExampleArrays
from embfit.training.grouping import RandomGrouping
from embfit.training.in_batch import InBatch, InBatchData
from embfit.training.step import loss_parts
from embfit.training.step.gradients import ComputeSettings
from embfit.training.step.optimization import Optimization
from tests.conftest import TEXTS, new_encoder, new_late_encoder

STILL = Optimization(lr=0.0, loss_lr=0.0, weight_decay=0.0, warmup=0.0, schedule="constant", clip_norm=None, steps=1)


@pytest.fixture
def training_set(small_collection: Collection) -> TrainingSet:
    """Eight examples with a negative each; a teacher has scored all."""
    rows = [
        {
            "query": row,
            "positives": [row],
            "negatives": [row + 1],
            "scores": [3.0 + row, 1.0],
            "weight": 1.0,
            "source": "test",
        }
        for row in range(8)
    ]
    return TrainingSet(small_collection, Dataset.from_list(rows), {row: frozenset([row]) for row in range(8)})


@pytest.fixture
def late(tokenizer: PreTrainedTokenizerFast) -> Callable[..., LateInteractionEncoder]:
    """Make the same late-interaction encoder each time."""
    return partial(new_late_encoder, tokenizer)


def plain_loss(
    encoder: LateInteractionEncoder, training_set: TrainingSet, batch: Batch, loss: nn.Module, dims: list[int]
) -> None:
    """Compute the gradients of InfoNCE on padded token vectors, all texts and products in one graph."""
    collection = training_set.collection

    def embed(texts: list[str], kind: str) -> list[Tensor]:
        found = []
        for text in texts:
            tokens = encoder.tokenize([text], kind)  # type: ignore[arg-type]
            ids, roles = tokens.padded(np.array([0]), 0)
            hidden = encoder.backbone(input_ids=ids, attention_mask=roles & ATTENDED).last_hidden_state[0]
            projected = hidden @ encoder.head[0].linear.weight.T  # type: ignore[union-attr,operator]
            found.append(projected[(roles[0] & SCORED) > 0])
        return found

    queries = embed(list(collection.query_texts(batch.queries)), "query")
    documents = embed(list(collection.document_texts(batch.documents)), "document")
    labels = batch.relations.positives.float().argmax(dim=1)
    negatives = ~batch.relations.positives & ~batch.relations.ignored
    losses = []
    for dim in dims:
        ours, theirs = ([functional.normalize(one[:, :dim], dim=1) for one in side] for side in (queries, documents))
        rows = [torch.stack([(q @ d.T).max(dim=1).values.mean() for d in theirs]) for q in ours]
        scores = torch.stack(rows) / 0.05  # [Q, D]
        counted = negatives.clone()
        counted[range(len(labels)), labels] = True
        losses.append(functional.cross_entropy(scores.masked_fill(~counted, float("-inf")), labels))
    torch.stack(losses).mean().backward()


def gradients(encoder: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in encoder.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("pairs", [2**23, 200], ids=["one part", "in parts"])
@pytest.mark.parametrize("memory_gb", [None, 0.0], ids=["kept", "not kept"])
@pytest.mark.parametrize(
    ("loss", "dims"), [(InfoNCE(), [16]), (Matryoshka(InfoNCE(), [8, 16]), [8, 16])], ids=["infonce", "mrl"]
)
def test_a_step_has_the_gradients_of_the_formula(
    loss: nn.Module,
    dims: list[int],
    memory_gb: float | None,
    pairs: int,
    late: Callable[..., LateInteractionEncoder],
    training_set: TrainingSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss_parts, "PAIRS", pairs)
    examples, grouping = ExampleArrays(training_set, 8), RandomGrouping(8, 8)
    batch = EpochBatches(examples, grouping, seed=0, epoch=0)[0]
    expected = late()
    plain_loss(expected, training_set, batch, loss, dims)

    encoder = late()
    tokens = [
        encoder.tokenize(training_set.collection.query_texts(), "query"),
        encoder.tokenize(training_set.collection.document_texts(), "document"),
    ]
    compute = ComputeSettings(60, memory_gb, dropout=False, precision="fp32", seed=0)  # a few texts a micro-batch
    module = InBatch(encoder, loss, InBatchData(examples, *tokens, grouping), STILL, compute)
    found: dict[str, Tensor] = {}
    module._update = lambda loss: found.update(gradients(encoder)) or torch.zeros(())  # type: ignore[method-assign,func-returns-value]
    module.record = lambda step, pairs, measured: None  # type: ignore[method-assign]
    module.training_step(module.prepare(batch), 0)

    wanted = gradients(expected)
    assert found.keys() == wanted.keys()
    assert "head.0.linear.weight" in found
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.fixture
def fit(training_set: TrainingSet, store: Store, tmp_path: Path) -> Callable[..., Fit]:
    """Train for a few steps."""

    def run(encoder: LateInteractionEncoder, loss: nn.Module, validate=None, **settings: object) -> Fit:
        training = Training(**({"batch_size": 4, "lr": 1e-2, "steps": 6, "precision": "fp32"} | settings))
        trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
        return training.fit(encoder, loss, training_set, validate, trainer, store, tmp_path)

    return run


def value(encoder: LateInteractionEncoder) -> float:
    """How far a query's own document is above the mean of the others."""
    queries = encoder.embed([" ".join(text.split()[:4]) for text in TEXTS[:8]], "query")
    scores = queries.scores(encoder.embed(TEXTS[:8], "document"))
    return float(scores.diagonal().mean() - scores.mean())


@pytest.mark.parametrize(
    "loss",
    [
        InfoNCE(symmetric=True, query_query=True),
        KL(),
        MarginMSE(scale=1.0),
        Distillation(InfoNCE(), KL()),
        Matryoshka(InfoNCE(), dims_per_step=1),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_every_loss_trains_it(
    loss: nn.Module, late: Callable[..., LateInteractionEncoder], fit: Callable[..., Fit]
) -> None:
    encoder = late()
    before = value(encoder)
    assert fit(encoder, loss, guide=None).steps == 6
    assert value(encoder) > before + 0.01


def test_its_own_prefixes_are_the_default_of_mrl() -> None:
    loss = Matryoshka(InfoNCE())
    assert loss.dims_of(128, single=False) == (32, 64, 96, 128)
    assert loss.dims_of(96, single=False) == (32, 64, 96)
    assert loss.dims_of(128) == (64, 128)


def test_documents_are_not_compared_with_each_other(
    late: Callable[..., LateInteractionEncoder], fit: Callable[..., Fit]
) -> None:
    with pytest.raises(ConfigError, match=r"loss.document_document=true compares all vectors .* set it to false"):
        fit(late(), Matryoshka(InfoNCE(document_document=True)))


def test_training_may_read_less_of_a_document_than_search(
    late: Callable[..., LateInteractionEncoder], fit: Callable[..., Fit], store: Store
) -> None:
    encoder = late(training_document_length=9)
    seen: list[int] = []
    forward = encoder.forward
    encoder.forward = lambda ids, *of: (seen.append(ids.shape[1]), forward(ids, *of))[1]  # type: ignore[method-assign]
    fit(encoder, InfoNCE(), token_budget=1)  # a text a micro-batch
    assert max(seen) == 12  # a query's length
    assert 9 in seen
    assert encoder.embed(TEXTS, "document").counts.max() > 9
    assert {12, 9} == {int(np.diff(np.load(path)).max()) for path in store.dir.glob("tokens/*/starts.npy")}


def test_an_adapter_and_the_projection_are_trained(
    tokenizer: PreTrainedTokenizerFast, fit: Callable[..., Fit], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    save_encoder(new_encoder(tokenizer), tmp_path / "plain")
    choice = LateInteraction(str(tmp_path / "plain"), dim=16, document_length=24, precision="fp32", lora=LoRA(rank=2))
    encoder = choice.load("cpu")
    choice.check(encoder)
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    with choice.trainable(encoder):
        moving = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
        assert "head.0.linear.weight" in moving
        assert all("lora" in name for name in moving - {"head.0.linear.weight"})
        fit(encoder, InfoNCE())
    moved = {name for name, weight in encoder.state_dict().items() if (weight - before[name]).abs().max() > 1e-4}
    assert "head.0.linear.weight" in moved
    assert any("attention" in name for name in moved)
    assert not any("embeddings" in name for name in moved)
    save_encoder(encoder, tmp_path / "saved")
    again = encoder_at(str(tmp_path / "saved"), choice).load("cpu")
    np.testing.assert_array_equal(again.embed(TEXTS, "query").rows, encoder.embed(TEXTS, "query").rows)


def test_an_interrupted_training_ends_as_a_whole_one(
    late: Callable[..., LateInteractionEncoder], training_set: TrainingSet, store: Store, tmp_path: Path
) -> None:
    class Kill(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *arguments: object) -> None:
            if trainer.global_step == 3:
                raise KeyError("killed")

    def train(name: str, *callbacks: pl.Callback) -> np.ndarray:
        encoder = late(dropout=0.2)
        (tmp_path / name).mkdir(exist_ok=True)
        trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False, callbacks=list(callbacks))
        settings = replace(Training(batch_size=4, lr=1e-2, steps=6, precision="fp32"), dropout=True, checkpoint_every=2)
        settings.fit(encoder, InfoNCE(), training_set, None, trainer, store, tmp_path / name)
        return encoder.embed(TEXTS, "document").rows

    whole = train("whole")
    with pytest.raises(KeyError):
        train("killed", Kill())
    np.testing.assert_array_equal(train("killed"), whole)
