from __future__ import annotations

import pytest
import torch

from embfit.model.random_state import random_state


def test_it_is_the_same_each_time_and_leaves_no_trace() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    drawn = []
    for seed in (1, 1, 2):
        with random_state(seed, torch.device("cpu")):
            drawn.append(torch.rand(2).tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(torch.rand(3), expected)


def test_an_apple_gpu_is_seeded_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.tensor([7])
    calls: list[object] = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state)
    monkeypatch.setattr(torch.mps, "manual_seed", calls.append)
    monkeypatch.setattr(torch.mps, "set_rng_state", calls.append)
    with pytest.raises(KeyError), random_state(3, torch.device("mps")):
        raise KeyError
    assert calls == [3, state]
