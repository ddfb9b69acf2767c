from __future__ import annotations

import math

import pytest
import torch

from embfit.loss import Binary, Listwise

SCORES = torch.tensor([[2.0, 0.0, 1.0, 9.0], [1.0, 3.0, 0.0, 0.0]], requires_grad=True)
POSITIVES = torch.tensor([[True, False, False, False], [True, True, False, False]])
NEGATIVES = torch.tensor([[False, True, True, False], [False, False, True, False]])  # the fourth place is empty


def share(positive: float, *negatives: float) -> float:
    return -math.log(math.exp(positive) / (math.exp(positive) + sum(map(math.exp, negatives))))


def test_listwise_by_hand() -> None:
    expected = [share(2, 0, 1), share(1, 0), share(3, 0)]
    assert Listwise()(SCORES, POSITIVES, NEGATIVES).item() == pytest.approx(sum(expected) / 3, abs=1e-6)
    weighted = (expected[0] + 3 * (expected[1] + expected[2])) / 7
    found = Listwise()(SCORES, POSITIVES, NEGATIVES, torch.tensor([1.0, 3.0]))
    assert found.item() == pytest.approx(weighted, abs=1e-6)
    assert Listwise(0.5)(SCORES / 2, POSITIVES, NEGATIVES).item() == pytest.approx(sum(expected) / 3, abs=1e-6)


def test_binary_by_hand() -> None:
    def log_odds(score: float) -> float:
        return math.log(1 + math.exp(-score))

    positives, negatives = log_odds(2) + log_odds(1) + log_odds(3), log_odds(0) + log_odds(-1) + log_odds(0)
    assert Binary()(SCORES, POSITIVES, NEGATIVES).item() == pytest.approx((positives + negatives) / 6, abs=1e-6)
    assert Binary(2)(SCORES, POSITIVES, NEGATIVES).item() == pytest.approx((2 * positives + negatives) / 9, abs=1e-6)
    first, second = log_odds(2) + log_odds(0) + log_odds(-1), log_odds(1) + log_odds(3) + log_odds(0)
    weighted = Binary()(SCORES, POSITIVES, NEGATIVES, torch.tensor([1.0, 3.0]))
    assert weighted.item() == pytest.approx((first + 3 * second) / 12, abs=1e-6)


@pytest.mark.parametrize("loss", [Listwise(), Binary()])
def test_empty_places_get_no_gradient(loss: torch.nn.Module) -> None:
    (gradient,) = torch.autograd.grad(loss(SCORES, POSITIVES, NEGATIVES), SCORES)
    assert gradient[:, 3].tolist() == [0.0, 0.0]
    assert (gradient[POSITIVES] < 0).all()
    assert (gradient[NEGATIVES] > 0).all()


def test_lists_without_negatives_say_nothing_to_listwise() -> None:
    none = torch.zeros_like(NEGATIVES)
    value = Listwise()(SCORES, POSITIVES, none)
    (gradient,) = torch.autograd.grad(value, SCORES)
    assert value.item() == 0.0
    assert gradient.abs().max() == 0.0
    half = torch.tensor([[False, True, True, False], [False, False, False, False]])
    assert Listwise()(SCORES, POSITIVES, half).item() == pytest.approx(share(2, 0, 1), abs=1e-6)
