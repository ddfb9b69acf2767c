from __future__ import annotations

import pytest
import torch

from embfit.model.pooling import pool

TOKENS = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], [[0.0, 0.0], [5.0, 6.0], [7.0, 8.0]]])


def test_mean_leaves_padding_out() -> None:
    assert pool(TOKENS, torch.tensor([[1, 1, 0], [1, 1, 1]]), "mean").tolist() == [[2, 3], [4, pytest.approx(14 / 3)]]


def test_cls_is_the_first_real_token_on_either_padding_side() -> None:
    assert pool(TOKENS, torch.tensor([[1, 1, 0], [0, 1, 1]]), "cls").tolist() == [[1, 2], [5, 6]]


def test_pooling_is_fp32() -> None:
    assert pool(TOKENS.bfloat16(), torch.ones(2, 3, dtype=torch.long), "mean").dtype == torch.float32


def test_a_text_without_tokens_has_the_mean_0() -> None:
    assert pool(TOKENS, torch.tensor([[0, 0, 0], [1, 1, 1]]), "mean")[0].tolist() == [0, 0]
