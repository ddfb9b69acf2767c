from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count

import pytest
import torch

from embfit.training.step.backbone import direct_lookup
from embfit.training.step.metrics import PendingMetrics, StepMetrics
from embfit.training.step.prefetch import Prefetch

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Two seconds pass between any two looks at it."""
    ticks = count(0, 2)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    return ticks


def test_on_a_cpu_numbers_are_there_at_once() -> None:
    readings = StepMetrics()
    readings.put(1, {"loss": torch.tensor(0.5), "train/pairs": 8.0}, CPU)
    assert list(readings.take(CPU)) == [(1, {"loss": 0.5, "train/pairs": 8.0, "train/pairs_per_second": 4.0})]
    assert list(readings.take(CPU)) == []


def test_a_gpus_newest_step_is_not_waited_for() -> None:
    readings = StepMetrics()
    waited = []
    for step in (1, 2, 3):  # as `put` leaves them, without the device
        readings._waiting.append(
            PendingMetrics(step, {"train/pairs": step * 2.0}, (), torch.zeros(0), lambda: waited.append(1))
        )
    assert [(step, found["train/pairs_per_second"]) for step, found in readings.take(GPU)] == [(1, 1.0), (2, 2.0)]
    assert len(waited) == 2
    assert [step for step, _ in readings.take(GPU)] == []
    readings.restart_clock()  # a validation took its time
    assert list(readings.take(GPU, to_the_last=True)) == [(3, {"train/pairs": 6.0, "train/pairs_per_second": 3.0})]


def test_the_next_item_is_made_before_it_is_asked_for() -> None:
    made: list[int] = []
    items = iter(Prefetch(lambda number: made.append(number) or number * 10, range(3, 6)))
    assert next(items) == 30
    assert next(items) == 40
    assert set(made) >= {3, 4}
    assert list(items) == [50]
    assert made == [3, 4, 5]
    assert len(Prefetch(str, range(3, 6))) == 3


def test_what_making_an_item_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(Prefetch(lambda number: 1 // number, [1, 0]))


@pytest.mark.parametrize("padding", [None, 0])
def test_a_direct_lookup_has_the_plain_ones_gradient(tiny_encoder, padding: int | None) -> None:
    table = tiny_encoder.backbone.get_input_embeddings()
    table.padding_idx = padding
    ids = torch.tensor([[5, 7, 7, 0], [9, 5, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    direction = torch.linspace(-1, 1, 64).reshape(2, 32)

    def gradients() -> dict[str, torch.Tensor]:
        tiny_encoder.zero_grad()
        for _ in range(2):  # it is added to what is there
            (tiny_encoder(ids, mask) * direction).sum().backward()
        return {
            name: weight.grad.clone() for name, weight in tiny_encoder.named_parameters() if weight.grad is not None
        }

    plain = gradients()
    with direct_lookup(tiny_encoder.backbone):
        direct = gradients()
    assert "forward" not in vars(table)
    assert plain.keys() == direct.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(direct[name], gradient, atol=1e-6, rtol=1e-5)


def test_a_frozen_table_is_left_alone(tiny_encoder) -> None:
    tiny_encoder.backbone.get_input_embeddings().weight.requires_grad_(False)
    with direct_lookup(tiny_encoder.backbone):
        assert "forward" not in vars(tiny_encoder.backbone.get_input_embeddings())
