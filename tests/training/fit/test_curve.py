import pytest

from embfit.training.fit import curve as module
from embfit.training.fit.curve import Curve


def test_a_short_training_keeps_every_step() -> None:
    curve = Curve()
    for step in range(1, 4):
        curve.add({"step": step, "loss": 1 / step, "accuracy": 0.5, "lr": 1e-3})
    assert [point["step"] for point in curve.points] == [1, 2, 3]
    assert [point["loss"] for point in curve.points] == pytest.approx([1, 1 / 2, 1 / 3])


def test_a_long_training_keeps_means_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 4)
    curve = Curve()
    for step in range(1, 12):
        curve.add({"step": step, "loss": float(step)})
    # After 4 steps two points of 2 stand; after 8 two points of 4; steps 9 to 11 wait for the twelfth.
    assert curve.points == [{"step": 4, "loss": 2.5}, {"step": 8, "loss": 6.5}]
    curve.add({"step": 12, "loss": 12.0})
    assert curve.points[-1] == {"step": 12, "loss": 10.5}


def test_it_goes_on_from_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 4)
    whole, first, second = Curve(), Curve(), Curve()
    for step in range(1, 12):
        whole.add({"step": step, "loss": float(step)})
        (first if step < 6 else second).add({"step": step, "loss": float(step)})
        if step == 5:
            second.restore(first.state())
    assert second.state() == whole.state()
