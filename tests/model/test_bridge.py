"""The bridge: ridge regression as its formula says, and an encoder that gives an older model's vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from embfit.errors import UserError
from embfit.model import Pretrained, save_encoder
from embfit.model.bridge import PENALTIES, bridged, fit_bridge
from embfit.model.query_adapter import as_projection
from embfit.vectors import unit_length
from tests.conftest import TEXTS, new_encoder


def vectors(count: int, width: int, seed: int = 0) -> np.ndarray:
    return unit_length(np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32))


@pytest.mark.parametrize("width", [6, 4])
def test_the_map_is_the_formulas(width: int) -> None:
    new, old = vectors(50, 6), vectors(50, width, seed=1)
    found = fit_bridge(new, old, penalties=[0.3])
    x, y = new.astype(np.float64), old.astype(np.float64)
    towards = np.eye(6) if width == 6 else np.zeros((6, width))
    strength = 0.3 * np.trace(x.T @ x) / 6
    wanted = towards + np.linalg.solve(x.T @ x + strength * np.eye(6), x.T @ (y - x @ towards))
    assert np.allclose(found.matrix, wanted, atol=1e-6)
    assert (found.matrix.shape, found.texts, found.penalty) == ((6, width), 50, 0.3)
    assert (found.unmapped is None) == (width != 6)


def test_a_rotation_is_found(tokenizer: PreTrainedTokenizerFast) -> None:
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(8, 8)))[0]
    new = vectors(200, 8)
    found = fit_bridge(new, new @ rotation)
    assert np.allclose(found.matrix, rotation, atol=1e-3)
    assert found.penalty == PENALTIES[0]
    assert found.agreement == pytest.approx(1, abs=1e-6)
    assert found.unmapped == pytest.approx(float(np.einsum("nd,nd->n", new, new @ rotation).mean()), abs=1e-6)


def test_noise_draws_the_map_to_where_it_begins() -> None:
    new = vectors(30, 16)
    noise = unit_length(new + 0.3 * vectors(30, 16, seed=1))
    found = fit_bridge(new, noise)
    assert found.penalty >= 1
    assert found.agreement >= found.unmapped - 1e-9  # the identity is the limit of the choices
    # held out, by a loop over the folds
    fold_of = np.random.default_rng(0).permutation(30) % 5
    cosines = []
    for fold in range(5):
        x, y = new[fold_of != fold].astype(np.float64), noise[fold_of != fold]
        ridge = found.penalty * np.trace(x.T @ x) / 16 * np.eye(16)
        matrix = np.eye(16) + np.linalg.solve(x.T @ x + ridge, x.T @ (y - x))
        mapped = unit_length(new[fold_of == fold] @ matrix)
        cosines += np.einsum("nd,nd->n", mapped, noise[fold_of == fold]).tolist()
    assert found.agreement == pytest.approx(np.mean(cosines), abs=1e-6)


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(UserError, match=r"9 texts are too few to fit a bridge on, 10 at least; .* task\.documents"):
        fit_bridge(vectors(9, 4), vectors(9, 4))
    with pytest.raises(UserError, match="a vector is not finite"):
        fit_bridge(np.full((10, 4), np.nan), vectors(10, 4))


def test_an_encoder_over_the_bridge(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = new_encoder(tokenizer, query_prompt="q ")
    matrix = np.random.default_rng(0).normal(size=(32, 20)).astype(np.float32)
    over = bridged(encoder, matrix, normalize=True)
    for kind in ("query", "document"):
        assert np.allclose(over.encode(TEXTS, kind), unit_length(encoder.encode(TEXTS, kind) @ matrix), atol=1e-6)
        assert over.fingerprint(kind) != encoder.fingerprint(kind)
    assert over.width == 20
    plain = bridged(encoder, matrix, normalize=False)
    assert np.allclose(plain.encode(TEXTS, "query"), encoder.encode(TEXTS, "query") @ matrix, atol=1e-6)
    save_encoder(over, tmp_path / "model")
    again = Pretrained(str(tmp_path / "model"), precision="fp32").load("cpu")
    assert again.fingerprint("query") == over.fingerprint("query")
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert np.abs(loaded.encode_query(TEXTS) - over.encode(TEXTS, "query")).max() < 1e-5


def test_a_query_adapter_needs_no_bridge(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = new_encoder(tokenizer)
    encoder.query_adapter = as_projection(torch.eye(32))
    with pytest.raises(UserError, match="tiny has a query adapter, which leaves the index of its own base valid"):
        bridged(encoder, np.eye(32, dtype=np.float32), normalize=True)
