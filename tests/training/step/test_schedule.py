from __future__ import annotations

import pytest

from embfit.training.step.schedule import learning_rate_share


def test_linear_by_hand() -> None:
    shares = [learning_rate_share(step, 5, 0.2, "linear") for step in range(5)]
    assert shares == pytest.approx([1 / 2, 1, 3 / 4, 2 / 4, 1 / 4])


def test_cosine_by_hand() -> None:
    shares = [learning_rate_share(step, 4, 0.0, "cosine") for step in range(4)]
    assert shares == pytest.approx([1, 0.8535534, 0.5, 0.1464466])


def test_constant_after_warmup() -> None:
    assert [learning_rate_share(step, 4, 0.25, "constant") for step in range(4)] == [1 / 2, 1, 1, 1]
    assert [learning_rate_share(step, 4, 0.1, "constant") for step in range(4)] == [1 / 2, 1, 1, 1]  # 0.4 steps are one
