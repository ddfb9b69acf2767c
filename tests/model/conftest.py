"""Fixtures: model choices on folders of their architecture, and a training of a few steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from datasets import Dataset
from omegaconf import OmegaConf
from torch import nn

from embfit.compose.build import make
from embfit.compose.composition import compose
from embfit.compose.loader import make_loader
from embfit.loss import InfoNCE
from embfit.model import Encoder, Pretrained
from embfit.records import Collection, TrainingSet
from embfit.store import Store
from embfit.training import Fit, Training
from tests.model.architectures import new_folder


@pytest.fixture
def chosen(tmp_path: Path) -> Callable[..., Pretrained]:
    """Make the object of a model's YAML, on a random-weight folder of its architecture; keys may be overridden."""

    def choose(choice: str, *overrides: str) -> Pretrained:
        folder = tmp_path / choice
        if not folder.exists():
            new_folder(choice, folder)
        command = [f"model={choice}", f"model.path={folder}", "model.max_length=48", "model.precision=fp32", *overrides]
        model: Pretrained = make(OmegaConf.to_container(compose(make_loader(), command).model, resolve=True), "model")
        return model

    return choose


@pytest.fixture
def train(small_collection: Collection, store: Store, tmp_path: Path) -> Callable[..., Fit]:
    """Train an encoder for three steps of four examples each, on what a model's settings say is trained."""
    rows = [
        {"query": row, "positives": [row], "negatives": [], "scores": [], "weight": 1.0, "source": "test"}
        for row in range(8)
    ]
    examples = TrainingSet(small_collection, Dataset.from_list(rows), {row: frozenset([row]) for row in range(8)})

    def run(
        model: Pretrained,
        encoder: Encoder,
        loss: nn.Module | None = None,
        validate: Any = None,
        folder: str = "training",
        callbacks: Sequence[pl.Callback] = (),
        **settings: Any,
    ) -> Fit:
        training = Training(**({"batch_size": 4, "lr": 1e-2, "steps": 3, "precision": "fp32"} | settings))
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False, callbacks=list(callbacks))
        with model.trainable(encoder):
            return training.fit(encoder, loss or InfoNCE(), examples, validate, trainer, store, place)

    return run
