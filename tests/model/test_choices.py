"""Each model's YAML on a random-weight folder of its architecture: loaded, trained, saved, loaded again."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from sentence_transformers import SentenceTransformer

from embfit.compose.build import make
from embfit.compose.composition import compose
from embfit.compose.loader import make_loader
from embfit.model import Pretrained, save_encoder
from embfit.training import Fit
from tests.conftest import TEXTS
from tests.model.architectures import MAKERS

DECODERS = ("e5-mistral-7b", "qwen3-embedding-0.6b")
INSTRUCTION = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


def trained_and_saved(model: Pretrained, train: Callable[..., Fit], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the queries' vectors before and after training; the trained model is in the folder."""
    encoder = model.load("cpu")
    before = encoder.encode(TEXTS, "query")
    train(model, encoder)
    after = encoder.encode(TEXTS, "query")
    save_encoder(encoder, folder)
    return before, after


@pytest.mark.parametrize("choice", [*MAKERS, *(f"{name} by LoRA" for name in DECODERS)])
def test_load_train_save_reload(
    choice: str, chosen: Callable[..., Pretrained], train: Callable[..., Fit], tmp_path: Path
) -> None:
    name, _, lora = choice.partition(" by ")
    rank = "model.lora.rank=4" if lora else "model.lora.rank=null"
    model = chosen(name, rank, "model.dtype=float32")
    before, after = trained_and_saved(model, train, tmp_path / "model")
    assert np.abs(after - before).max() > 1e-3
    again = Pretrained(str(tmp_path / "model"), precision="fp32").load("cpu")
    np.testing.assert_allclose(again.encode(TEXTS, "query"), after, atol=1e-6)
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    for kind in ("query", "document"):
        expected = theirs.encode(TEXTS, prompt_name=kind)
        np.testing.assert_allclose(again.encode(TEXTS, kind), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("choice", "pooling", "query", "document"),
    [
        ("e5-mistral-7b", "lasttoken", INSTRUCTION + " ", ""),
        ("qwen3-embedding-0.6b", "lasttoken", INSTRUCTION, ""),
        ("gte-modernbert", "cls", "", ""),
        ("nomic-embed", "mean", "search_query: ", "search_document: "),
        ("bge-m3", "cls", "", ""),
    ],
)
def test_what_a_choice_says_is_written_into_the_folder(
    choice: str, pooling: str, query: str, document: str, chosen: Callable[..., Pretrained], tmp_path: Path
) -> None:
    save_encoder(chosen(choice).load("cpu"), tmp_path / "model")
    written = json.loads((tmp_path / "model" / "1_Pooling" / "config.json").read_text())
    flag = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}[pooling]
    assert [name for name, value in written.items() if name.startswith("pooling_mode") and value] == [
        f"pooling_mode_{flag}"
    ]
    prompts = json.loads((tmp_path / "model" / "config_sentence_transformers.json").read_text())["prompts"]
    assert prompts == {"query": query, "document": document}


def test_bge_large_with_mrl_learns_at_each_dim_of_its_own(
    chosen: Callable[..., Pretrained], train: Callable[..., Fit]
) -> None:
    model = chosen("bge-large")
    loss = make(OmegaConf.to_container(compose(make_loader(), ["model=bge-large", "loss=mrl"]).loss), "loss")
    encoder = model.load("cpu")
    assert loss.dims_of(encoder.width) == (64, 128, 256, 512, 768, 1024)
    before = encoder.encode(TEXTS[:8], "document")
    fit = train(model, encoder, loss)
    moved = np.abs(encoder.encode(TEXTS[:8], "document") - before).max(axis=0)
    assert fit.steps == 3
    for low, high in pairwise((0, *loss.dims_of(1024))):
        assert moved[low:high].max() > 1e-3
