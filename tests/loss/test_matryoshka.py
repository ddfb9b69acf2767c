from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.nn import functional

from embfit.loss import InfoNCE, Matryoshka, Relations
from embfit.vectors import Vectors

LABELS = torch.eye(4, dtype=torch.bool)
RELATIONS = Relations(LABELS, ~LABELS & False, torch.ones(4))


def vectors(seed: int) -> Vectors[torch.Tensor]:
    return Vectors(functional.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(seed)), dim=-1))


def prefix_loss(dim: int) -> float:
    queries, documents = (functional.normalize(vectors(seed).rows[:, :dim], dim=-1) for seed in (0, 1))
    return InfoNCE()(Vectors(queries), Vectors(documents), RELATIONS).item()


def test_is_the_mean_over_renormalised_prefixes() -> None:
    loss = Matryoshka(InfoNCE(), dims=[4, 16])(vectors(0), vectors(1), RELATIONS)
    assert loss.item() == pytest.approx((prefix_loss(4) + prefix_loss(16)) / 2, rel=1e-6)


def test_weights_prefixes() -> None:
    loss = Matryoshka(InfoNCE(), dims=[4, 16], weights=[1, 3])(vectors(0), vectors(1), RELATIONS)
    assert loss.item() == pytest.approx((prefix_loss(4) + 3 * prefix_loss(16)) / 4, rel=1e-6)


@pytest.mark.parametrize(
    ("width", "dims"),
    [(384, (64, 128, 256, 384)), (768, (64, 128, 256, 512, 768)), (1024, (64, 128, 256, 512, 768, 1024)), (32, (32,))],
)
def test_default_dims_come_from_the_model(width: int, dims: tuple[int, ...]) -> None:
    assert Matryoshka(InfoNCE()).dims_of(width) == dims


def test_a_dim_wider_than_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="512, more than the model's 384"):
        Matryoshka(InfoNCE(), dims=[64, 512]).dims_of(384)


def test_no_dims_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dims=\[\] name no prefix"):
        Matryoshka(InfoNCE(), dims=[])


def test_one_weight_per_dim() -> None:
    with pytest.raises(ValueError, match="2 dims and 1 weights"):
        Matryoshka(InfoNCE(), dims=[4, 16], weights=[1])


def test_weights_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="leave nothing to learn"):
        Matryoshka(InfoNCE(), dims=[4, 16], weights=[0, 0])


def drawn_losses(loss: Matryoshka, draws: int) -> list[float]:
    losses = []
    for seed in range(draws):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            losses.append(loss(vectors(0), vectors(1), RELATIONS).item())
    return losses


def test_drawn_dims_stand_for_all() -> None:
    loss = Matryoshka(InfoNCE(), dims=[2, 4, 16], weights=[1, 2, 4], dims_per_step=2)
    every = {2: 1, 4: 2, 16: 4}
    pairs = {
        round((every[a] * prefix_loss(a) + every[b] * prefix_loss(b)) / (7 * 2 / 3), 4): (a, b)
        for a, b in ((2, 4), (2, 16), (4, 16))
    }
    drawn = [pairs[round(value, 4)] for value in drawn_losses(loss, 30)]
    assert min(Counter(drawn).values()) >= 4
    assert len(set(drawn)) == 3


def test_a_prefix_drawn_alone_keeps_its_weight() -> None:
    loss = Matryoshka(InfoNCE(), dims=[4, 16], weights=[1, 0], dims_per_step=1)
    assert {round(value, 4) for value in drawn_losses(loss, 10)} == {0.0, round(2 * prefix_loss(4), 4)}
