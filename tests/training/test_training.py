from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from datasets import Dataset
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import nn

from embfit.errors import ConfigError, UserError
from embfit.loss import KL, Distillation, InfoNCE, Matryoshka
from embfit.model import Encoder
from embfit.records import Collection, DevQuality, TrainingSet
from embfit.store import Store
from embfit.tokens import plan_batches
from embfit.training import Fit, Training
from embfit.training.batches import Batch, EpochBatches, ExampleArrays
from embfit.training.fit import fit as fit_file
from embfit.training.fit.validation import Validation
from embfit.training.grouping import RandomGrouping
from embfit.training.in_batch import InBatch, InBatchData
from embfit.training.settings import TrainingSettings
from embfit.training.step.backbone import gradient_checkpointing
from embfit.training.step.gradient_cache import CachedEncoding
from embfit.training.step.gradients import ComputeSettings, Inputs
from embfit.training.step.memory import GIGABYTE, measure_graph
from embfit.training.step.optimization import Optimization
from embfit.vectors import Vectors
from tests.conftest import TEXTS, steady

TRAINER = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
STILL = Optimization(lr=0.0, loss_lr=0.0, weight_decay=0.0, warmup=0.0, schedule="constant", clip_norm=None, steps=1)


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


@pytest.fixture
def fit(training_set: TrainingSet, store: Store, tmp_path: Path) -> Callable[..., Fit]:
    """Run `Training` on the small set."""

    def run(encoder: Encoder, loss: nn.Module | None = None, validate=None, **settings: object) -> Fit:
        training = Training(**({"batch_size": 4, "lr": 1e-3, "epochs": 4, "precision": "fp32"} | settings))
        return training.fit(encoder, loss or InfoNCE(), training_set, validate, TRAINER, store, tmp_path)

    return run


def in_batch(
    encoder: Encoder, training_set: TrainingSet, memory_gb: float | None, dropout: bool, checkpointing: bool = False
) -> InBatch:
    collection = training_set.collection
    return InBatch(
        encoder,
        InfoNCE(),
        InBatchData(
            ExampleArrays(training_set, 8),
            encoder.tokenize(collection.query_texts(), "query"),
            encoder.tokenize(collection.document_texts(), "document"),
            RandomGrouping(8, 8),
        ),
        STILL,
        ComputeSettings(
            40, memory_gb, dropout, "fp32", seed=0, gradient_checkpointing=checkpointing
        ),  # a few texts each
    )


def plain_gradients(encoder: Encoder, training_set: TrainingSet) -> dict[str, torch.Tensor]:
    """The textbook step: one padded batch a side, one graph, one backward."""
    batch = whole_batch(training_set)
    collection = training_set.collection

    def embed(texts: list[str]) -> torch.Tensor:
        inputs = encoder.tokenizer(texts, return_tensors="pt", padding=True)
        return encoder(inputs["input_ids"], inputs["attention_mask"])

    queries = embed(list(collection.query_texts(batch.queries)))
    documents = embed(list(collection.document_texts(batch.documents)))
    InfoNCE()(Vectors(queries), Vectors(documents), batch.relations).backward()
    return gradients(encoder)


def whole_batch(training_set: TrainingSet) -> Batch:
    return EpochBatches(ExampleArrays(training_set, 8), RandomGrouping(8, 8), seed=0, epoch=0)[0]


def gradients(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in encoder.named_parameters() if weight.grad is not None}


def step_gradients(
    encoder: Encoder, training_set: TrainingSet, keep: int, dropout: bool = False, checkpointing: bool = False
) -> dict[str, torch.Tensor]:
    """The trainer's own step with a number of micro-batches kept, stopped before the weights move."""
    module = in_batch(encoder, training_set, None, dropout, checkpointing)
    encoder.train(dropout)
    module._gradients._kept = lambda *arguments: keep
    found: dict[str, torch.Tensor] = {}
    module._update = lambda loss: found.update(gradients(encoder)) or torch.zeros(())
    module.record = lambda *arguments: None
    encoder.zero_grad()
    module.training_step(module.prepare(whole_batch(training_set)), 0)
    return found


@pytest.mark.parametrize("keep", [0, 2, 100])
def test_gradients_equal_the_plain_loss(
    make_encoder: Callable[..., Encoder], training_set: TrainingSet, keep: int
) -> None:
    expected = plain_gradients(make_encoder(), training_set)
    found = step_gradients(make_encoder(), training_set, keep)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dropout", [False, True])
def test_what_memory_keeps_does_not_change_a_bit(
    make_encoder: Callable[..., Encoder], training_set: TrainingSet, dropout: bool
) -> None:
    found = [step_gradients(make_encoder(dropout=0.3), training_set, keep, dropout) for keep in (0, 2, 100)]
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])
        assert torch.equal(gradient, found[2][name])


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("keep", [0, 100])
def test_gradient_checkpointing_does_not_change_gradients(
    make_encoder: Callable[..., Encoder], training_set: TrainingSet, keep: int, dropout: bool
) -> None:
    plain, again = make_encoder(dropout=0.3), make_encoder(dropout=0.3)
    runs = Counter[str]()
    again.backbone.encoder.layer[1].attention.register_forward_hook(lambda *given: runs.update(["again"]))
    plain.backbone.encoder.layer[1].attention.register_forward_hook(lambda *given: runs.update(["plain"]))
    expected = step_gradients(plain, training_set, keep, dropout)
    found = step_gradients(again, training_set, keep, dropout, checkpointing=True)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-6)
    assert runs["again"] > runs["plain"] > 0
    assert "forward" not in vars(again.backbone.encoder.layer[1])


def test_an_apple_gpu_draws_no_dropout_twice() -> None:
    both = Training(dropout=True, gradient_checkpointing=True)
    assert both.compute_settings(torch.device("cpu")).gradient_checkpointing
    with pytest.raises(UserError, match=r"draws another dropout; set training.dropout=false"):
        both.compute_settings(torch.device("mps"))


def test_gradient_checkpointing_keeps_less(make_encoder: Callable[..., Encoder]) -> None:
    encoder = make_encoder()
    inputs = encoder.tokenizer(TEXTS, return_tensors="pt", padding=True)
    with measure_graph(encoder) as plain:
        encoder(inputs["input_ids"], inputs["attention_mask"])
    with measure_graph(encoder) as less, gradient_checkpointing(encoder.backbone):
        encoder(inputs["input_ids"], inputs["attention_mask"])
    assert less.bytes < plain.bytes / 3


def test_dropout_is_on_only_when_asked(make_encoder: Callable[..., Encoder], training_set: TrainingSet) -> None:
    off = step_gradients(make_encoder(dropout=0.3), training_set, 100, dropout=False)
    none = step_gradients(make_encoder(dropout=0.0), training_set, 100, dropout=False)
    on = step_gradients(make_encoder(dropout=0.3), training_set, 100, dropout=True)
    name = "backbone.encoder.layer.0.output.dense.weight"
    assert torch.equal(off[name], none[name])
    assert (on[name] - off[name]).abs().max() > 1e-4


def test_each_step_drops_others(make_encoder: Callable[..., Encoder], fit: Callable[..., Fit], tmp_path: Path) -> None:
    """Every step is of all the examples, and moves nothing to speak of."""

    def losses(dropout: bool) -> set[float]:
        (tmp_path / "step.pt").unlink(missing_ok=True)
        fitted = fit(make_encoder(dropout=0.3), batch_size=8, lr=1e-30, epochs=3, dropout=dropout)
        return {round(point["loss"], 5) for point in fitted.curve}

    assert [len(losses(dropout)) for dropout in (False, True)] == [1, 3]


def moving(module: InBatch, optimizer: torch.optim.Optimizer) -> Callable[[float], float]:
    """Return what moves a module whose gradients are all 1, outside of a Trainer: a loss → the norm that is told."""
    stepping = SimpleNamespace(optimizer=optimizer, step=optimizer.step, zero_grad=optimizer.zero_grad)
    module.optimizers = lambda: stepping
    module.lr_schedulers = lambda: SimpleNamespace(get_last_lr=lambda: [1.0], step=lambda: None)

    def move(loss: float) -> float:
        for weight in module.parameters():
            weight.grad = torch.ones_like(weight)
        return module._update(torch.tensor(loss)).item()

    return move


@pytest.mark.parametrize(("clip_norm", "left"), [(0.5, 0.5), (1e9, None), (None, None)])
def test_gradients_are_scaled_down_to_the_norm(
    tiny_encoder: Encoder, training_set: TrainingSet, clip_norm: float | None, left: float | None
) -> None:
    module = in_batch(tiny_encoder, training_set, None, dropout=False)
    module.optimization = replace(STILL, clip_norm=clip_norm)
    plain = math.sqrt(sum(weight.numel() for weight in module.parameters()))
    stepped: list[float] = []

    class Steps(torch.optim.SGD):
        def step(self) -> None:
            stepped.append(math.sqrt(sum((weight.grad**2).sum().item() for weight in module.parameters())))

    told = moving(module, Steps(module.parameters(), lr=1.0))(0.5)
    assert told == pytest.approx(plain, rel=1e-4)
    assert stepped == pytest.approx([left or plain], rel=1e-4)


def test_after_a_broken_step_nothing_moves_any_more(tiny_encoder: Encoder, training_set: TrainingSet) -> None:
    """On a GPU the next step is queued before anyone has read that the one before was broken."""
    module = in_batch(tiny_encoder, training_set, None, dropout=False)
    weight = next(tiny_encoder.parameters())
    move = moving(module, replace(STILL, lr=0.1).optimizer(tiny_encoder, module.loss, torch.device("cpu"))[0])
    seen = [weight[0, 0].item()]
    for loss in (0.5, float("nan"), 0.5):
        move(loss)
        seen.append(weight[0, 0].item())
    assert seen[1] == pytest.approx(seen[0] - 0.1, abs=1e-4)
    assert seen[1] == seen[2] == seen[3]


def test_cached_encoding_runs_kept_micro_batches_once() -> None:
    weight = nn.Parameter(torch.tensor(2.0))
    runs: list[int] = []

    def encode(rows: torch.Tensor) -> torch.Tensor:
        runs.append(len(rows))
        return rows * weight

    inputs = [torch.ones(1, 1), torch.ones(2, 1), torch.ones(3, 1)]
    encoding = CachedEncoding[torch.Tensor](encode, lambda row: torch.random.fork_rng())
    outputs = encoding.forward(inputs, keep=1)
    encoding.backward([torch.ones_like(output) for output in outputs])
    assert runs == [1, 2, 3, 2, 3]
    assert weight.grad.item() == 6


def test_the_graph_is_measured(tiny_encoder: Encoder) -> None:
    inputs = tiny_encoder.tokenizer(TEXTS, return_tensors="pt", padding=True)
    with measure_graph(tiny_encoder) as size:
        tiny_encoder(inputs["input_ids"], inputs["attention_mask"])
    tokens = inputs["input_ids"].numel()
    # at least what two layers of 32 and 64 dimensions must keep: attention's inputs and outputs, both dense inputs
    assert tokens * 2 * (32 * 5 + 64) * 4 < size.bytes < tokens * 2 * (32 * 20 + 64 * 6) * 4


def test_memory_decides_how_many_are_kept(make_encoder: Callable[..., Encoder], training_set: TrainingSet) -> None:
    batch = whole_batch(training_set)

    def kept(memory_gb: float | None) -> tuple[int, int]:
        module = in_batch(make_encoder(), training_set, memory_gb, dropout=False)
        texts = module.data.document_tokens.take(batch.documents)
        micro_batches = plan_batches(texts.lengths, 40)

        def encode(rows: np.ndarray) -> torch.Tensor:
            return module.encoder(*texts.padded(rows, module.encoder.pad_id))

        return module._gradients._kept(Inputs(texts.lengths, encode), micro_batches, 0), len(micro_batches)

    assert kept(0.0)[0] == 0
    everything, count = kept(None)
    assert everything == count > 3
    assert 0 < kept(300_000 / GIGABYTE)[0] < count


def test_training_learns(make_encoder: Callable[..., Encoder], fit: Callable[..., Fit]) -> None:
    encoder = make_encoder()
    before = encoder.encode(TEXTS[:8], "document")
    fitted = fit(encoder, epochs=20)
    queries = encoder.encode([" ".join(text.split()[:4]) for text in TEXTS[:8]], "query")
    assert ((queries @ encoder.encode(TEXTS[:8], "document").T).argmax(axis=1) == np.arange(8)).all()
    assert np.abs(encoder.encode(TEXTS[:8], "document") - before).max() > 1e-3
    assert (fitted.steps, fitted.epochs, fitted.stopped) == (40, 20.0, "finished")


def test_the_same_seed_gives_the_same_weights(
    make_encoder: Callable[..., Encoder], fit: Callable[..., Fit], tmp_path: Path
) -> None:
    fingerprints = []
    for seed in (0, 0, 1):
        encoder = make_encoder(dropout=0.1)
        fit(encoder, dropout=True, seed=seed)
        (tmp_path / "step.pt").unlink()  # a training of its own
        fingerprints.append(encoder.fingerprint("document"))
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_steps_instead_of_epochs(make_encoder: Callable[..., Encoder], fit: Callable[..., Fit]) -> None:
    fitted = fit(make_encoder(), steps=3, epochs=9)
    assert (fitted.steps, fitted.epochs) == (3, 1.5)


@pytest.mark.parametrize("batching", ["by_document", "by_source", "topical"])
def test_batchings_train_alike_each_time(
    make_encoder: Callable[..., Encoder], fit: Callable[..., Fit], tmp_path: Path, batching: str
) -> None:
    fingerprints = []
    for seed in (0, 0):
        encoder = make_encoder()
        assert fit(encoder, epochs=2, seed=seed, batching=batching).steps == 4
        (tmp_path / "step.pt").unlink(missing_ok=True)
        fingerprints.append(encoder.fingerprint("document"))
    assert fingerprints[0] == fingerprints[1] != make_encoder().fingerprint("document")


@pytest.mark.parametrize("other", [{"batching": "topical"}, {"guide": "base"}], ids=["batching", "guide"])
def test_other_batches_or_masks_are_another_training(
    make_encoder: Callable[..., Encoder], fit: Callable[..., Fit], other: dict[str, str]
) -> None:
    fit(make_encoder(), checkpoint_every=1, steps=2)
    with pytest.raises(UserError, match="is of another training"):
        fit(make_encoder(), checkpoint_every=1, steps=2, **other)


def test_the_best_weights_are_loaded(make_encoder: Callable[..., Encoder], fit: Callable[..., Fit]) -> None:
    encoder = make_encoder()
    scores = iter([0.1, 0.2, 0.5, 0.4, 0.3])
    seen: list[str] = []

    def validate(encoder: Encoder) -> DevQuality:
        seen.append(encoder.fingerprint("document"))
        return steady(next(scores))

    fitted = fit(encoder, validate=validate, epochs=4, validations_per_epoch=1, patience=None)
    assert fitted.kept_step == 4
    assert encoder.fingerprint("document") == seen[2]
    assert [entry["step"] for entry in fitted.history] == [0, 2, 4, 6, 8]


def test_each_training_compiles_anew(
    make_encoder: Callable[..., Encoder], fit: Callable[..., Fit], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda function, **settings: made.append("compiled") or function)
    monkeypatch.setattr(torch.compiler, "reset", lambda: made.append("forgotten"))
    for seed in (1, 2):
        fit(make_encoder(compile=True), epochs=1, seed=seed)
        (tmp_path / "step.pt").unlink()  # a training of its own
    fit(make_encoder(), epochs=1)
    assert made == ["compiled", "forgotten"] * 2


def test_a_plateau_ends_the_run(make_encoder: Callable[..., Encoder], fit: Callable[..., Fit]) -> None:
    scores = iter([0.5, 0.6, 0.6, 0.59, 0.7])
    fitted = fit(make_encoder(), validate=lambda encoder: steady(next(scores)), validations_per_epoch=1, patience=2)
    assert (fitted.stopped, fitted.steps, fitted.kept_step) == ("plateau", 6, 4)  # of equal ones the last


def test_small_gains_add_up_to_one(make_encoder: Callable[..., Encoder], fit: Callable[..., Fit]) -> None:
    scores = iter([0.5, 0.504, 0.508, 0.512, 0.511])  # steps 0, 2, 4, 6, 8: gains of 0.008 at 4 and then of 0.004
    fitted = fit(make_encoder(), validate=lambda encoder: steady(next(scores)), patience=2, min_gain=0.005)
    assert (fitted.stopped, fitted.steps, fitted.kept_step) == ("plateau", 8, 6)


def test_weights_that_never_beat_the_base_are_the_base(
    make_encoder: Callable[..., Encoder], fit: Callable[..., Fit]
) -> None:
    encoder = make_encoder()
    base = encoder.fingerprint("document")
    scores = iter([0.9, *[0.1] * 20])
    assert fit(encoder, validate=lambda encoder: steady(next(scores)), patience=None).kept_step == 0
    assert encoder.fingerprint("document") == base


def test_best_weights_that_cannot_be_read_are_an_error(
    make_encoder: Callable[..., Encoder], fit: Callable[..., Fit], tmp_path: Path
) -> None:
    def validate(encoder: Encoder) -> DevQuality:
        if not (tmp_path / "kept-0.safetensors").exists():
            return steady(0.5)
        (tmp_path / "kept-0.safetensors").write_bytes(b"damaged")
        return steady(0.1)

    with pytest.raises(UserError, match=r"the kept weights .* cannot be read"):
        fit(make_encoder(), validate=validate)


class Exploding(InfoNCE):
    """NaN from the third step on."""

    calls = 0

    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(*arguments) * (float("nan") if self.calls > 2 else 1.0)


def test_a_nan_loss_names_the_step_and_leaves_good_weights(
    make_encoder: Callable[..., Encoder], fit: Callable[..., Fit]
) -> None:
    encoder = make_encoder()
    with pytest.raises(UserError, match="the loss is nan in step 3"):
        fit(encoder, Exploding())
    assert all(torch.isfinite(weight).all() for weight in encoder.parameters())


def test_the_best_weights_come_back_to_the_device_of_training(
    make_encoder: Callable[..., Encoder], fit: Callable[..., Fit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning puts a module on the CPU when its training is over; here the device of training is called cpu:0."""
    done: list[str] = []

    def note(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def noted(*arguments: object) -> object:
            devices = [f" {argument}" for argument in arguments if isinstance(argument, torch.device)]
            done.append(name + "".join(devices))
            return real(*arguments)

        monkeypatch.setattr(owner, name, noted)

    monkeypatch.setattr(SingleDeviceStrategy, "root_device", property(lambda strategy: torch.device("cpu:0")))
    note(pl.LightningModule, "cpu")
    note(pl.LightningModule, "to")
    note(Validation, "restore_kept")
    note(fit_file, "peak_bytes")
    fit(make_encoder(), validate=lambda encoder: steady(0.5), steps=2)
    assert done == ["to cpu:0", "cpu", "to cpu:0", "restore_kept", "peak_bytes cpu"]


def test_ctrl_c_is_ctrl_c(make_encoder: Callable[..., Encoder], fit: Callable[..., Fit], tmp_path: Path) -> None:
    calls = 0

    def validate(encoder: Encoder) -> DevQuality:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return steady(calls / 10)

    with pytest.raises(KeyboardInterrupt):
        fit(make_encoder(), validate=validate)
    assert [path.name for path in tmp_path.glob("kept-*")] == ["kept-2.safetensors"]


def test_matryoshka_trains_prefixes(make_encoder: Callable[..., Encoder], fit: Callable[..., Fit]) -> None:
    encoder = make_encoder()
    fit(encoder, Matryoshka(InfoNCE(), dims=[4, 32]), epochs=30)

    def right(dim: int) -> float:
        queries, documents = (
            encoder.encode(texts, kind)[:, :dim]
            for texts, kind in (([" ".join(text.split()[:4]) for text in TEXTS[:8]], "query"), (TEXTS[:8], "document"))
        )
        documents = documents / np.linalg.norm(documents, axis=1, keepdims=True)
        return float(((queries @ documents.T).argmax(axis=1) == np.arange(8)).mean())

    assert right(4) >= 0.75
    assert right(32) == 1.0


def test_a_learned_temperature_moves(make_encoder: Callable[..., Encoder], fit: Callable[..., Fit]) -> None:
    loss = InfoNCE(0.05, learn_temperature=True)
    fit(make_encoder(), loss)
    assert loss.temperature.item() != pytest.approx(0.05, abs=1e-5)


def test_a_temperature_learns_while_the_encoder_moves_little(make_encoder: Callable[..., Encoder]) -> None:
    encoder, loss = make_encoder(), InfoNCE(0.05, learn_temperature=True)
    settings = TrainingSettings(schedule="constant", warmup=0.0)
    optimizer, _ = settings.optimization(steps=100).optimizer(encoder, loss, torch.device("cpu"))
    for _ in range(100):
        loss.log_excess.backward()  # the same gradient in each step
        optimizer.step()
        optimizer.zero_grad()
    assert loss.temperature.item() == pytest.approx(0.01 + 0.04 * math.exp(-100 * 1e-2), rel=1e-3)


def test_matrices_decay_alone(make_encoder: Callable[..., Encoder]) -> None:
    encoder, loss = make_encoder(), InfoNCE(0.05, learn_temperature=True)
    optimizer, _ = TrainingSettings().optimization(1).optimizer(encoder, loss, torch.device("cpu"))
    decayed, kept, learnt = optimizer.param_groups
    names = {id(weight): name for name, weight in encoder.named_parameters()}
    assert {names[id(weight)].rsplit(".", 1)[-1] for weight in decayed["params"]} == {"weight"}
    assert all("LayerNorm" in names[id(weight)] or names[id(weight)].endswith("bias") for weight in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
    assert [group["weight_decay"] for group in (decayed, kept, learnt)] == [0.01, 0.0, 0.0]
    assert (learnt["params"], learnt["initial_lr"], decayed["initial_lr"]) == ([loss.log_excess], 1e-2, 5e-5)


def test_progress_goes_to_the_log(
    make_encoder: Callable[..., Encoder], fit: Callable[..., Fit], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        fit(make_encoder(), validate=lambda encoder: steady(0.5), patience=None)
    assert "training on 8 examples: 8 steps of up to 4" in caplog.text
    assert "step 8: dev ndcg@10 0.5000" in caplog.text


def test_distillation_needs_a_teacher(make_encoder: Callable[..., Encoder], fit: Callable[..., Fit]) -> None:
    with pytest.raises(UserError, match="the training set has none"):
        fit(make_encoder(), Matryoshka(Distillation(InfoNCE(), KL())))


@pytest.mark.parametrize("loss", [InfoNCE(), Matryoshka(InfoNCE(1.0))], ids=["infonce", "mrl"])
def test_a_loss_of_cosines_wants_vectors_of_unit_length(
    make_encoder: Callable[..., Encoder], fit: Callable[..., Fit], loss: nn.Module
) -> None:
    with pytest.raises(ConfigError, match=rf"{type(loss).__name__} is made for cosines here.*model.normalize=true"):
        fit(make_encoder(normalize=False), loss)


def test_dot_products_are_trained_at_temperature_1(
    make_encoder: Callable[..., Encoder], fit: Callable[..., Fit]
) -> None:
    encoder = make_encoder(normalize=False)
    last = fit(encoder, InfoNCE(1.0), epochs=10, batch_size=8).curve[-1]
    queries = encoder.encode([" ".join(text.split()[:4]) for text in TEXTS[:8]], "query")
    scores = queries @ encoder.encode(TEXTS[:9], "document").T
    assert scores.max() > 2  # no cosines
    assert last["accuracy"] == (scores.argmax(axis=1) == np.arange(8)).mean()


def test_a_teachers_ranking_is_learnt(
    make_encoder: Callable[..., Encoder], training_set: TrainingSet, store: Store, tmp_path: Path
) -> None:
    rows = [row | {"negatives": [(row["query"] + 1) % 8], "scores": [0.0, 3.0]} for row in training_set.rows.to_list()]
    scored = TrainingSet(training_set.collection, Dataset.from_list(rows), {})  # the teacher prefers the negative
    encoder = make_encoder()
    training = Training(batch_size=8, lr=1e-2, epochs=30, precision="fp32")
    training.fit(encoder, KL(), scored, None, TRAINER, store, tmp_path)
    queries = encoder.encode([" ".join(text.split()[:4]) for text in TEXTS[:8]], "query")
    scores = queries @ encoder.encode(TEXTS[:8], "document").T
    assert all(scores[row, (row + 1) % 8] > scores[row, row] for row in range(8))


@pytest.fixture
def copies(training_set: TrainingSet) -> TrainingSet:
    """Eight examples whose documents are all the same text, so that none is a negative of another's query."""
    same = training_set.collection.corpus.map(lambda row: {"text": "one page"}, load_from_cache_file=False)
    return replace(training_set, collection=replace(training_set.collection, corpus=same))


def test_an_epoch_without_a_negative_ends_the_training(
    tiny_encoder: Encoder, copies: TrainingSet, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(batch_size=4, epochs=3, precision="fp32")
    with pytest.raises(UserError, match=r"^no step of epoch 1 had a negative: every document of its batch answers"):
        training.fit(tiny_encoder, InfoNCE(), copies, None, TRAINER, store, tmp_path)
    warned = [message for message in caplog.messages if "such a step teaches nothing" in message]
    assert warned == [
        "no query of step 1 has a negative: every document of its batch answers each query, or is a copy of one that "
        "does; such a step teaches nothing"
    ]


def test_one_step_without_a_negative_is_told_and_ends_nothing(
    tiny_encoder: Encoder, training_set: TrainingSet, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["one page"] * 4 + TEXTS[4:]
    same = Dataset.from_dict({"_id": training_set.collection.document_ids, "title": [""] * 12, "text": texts})
    rows = training_set.rows.map(lambda row: {"negatives": [], "source": str(row["query"] < 4)})
    some = replace(training_set, collection=replace(training_set.collection, corpus=same), rows=rows)
    training = Training(batch_size=4, epochs=2, precision="fp32", batching="by_source")
    assert training.fit(tiny_encoder, InfoNCE(), some, None, TRAINER, store, tmp_path).steps == 4
    assert len([message for message in caplog.messages if "such a step teaches nothing" in message]) == 1
