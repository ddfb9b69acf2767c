from __future__ import annotations

import logging

import pytest

from embfit import progress as module
from embfit.progress import progress
from embfit.training.fit.progress import TrainingProgress


def test_a_line_says_what_a_step_has_measured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)
    shown = TrainingProgress(20)
    with caplog.at_level(logging.INFO):
        shown.on_train_start(type("Trainer", (), {"global_step": 3}), None)
        shown.on_train_batch_end(None, None, None, None, 0)
        shown.watch(4, {"train/loss": 0.51234, "train/pairs_per_second": 12.345})
        shown.on_train_batch_end(None, None, None, None, 1)
    assert "training: 4 of 20 steps, " in caplog.text
    assert "training: 5 of 20 steps, " in caplog.text
    assert caplog.text.count("loss 0.5123, 12.3 pairs/s, ") == 1
    assert caplog.text.count("s left") == 2


def test_work_without_a_note_has_its_rate_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)
    with caplog.at_level(logging.INFO), progress("reading", 2, "texts") as advance:
        advance()
    assert "reading: 1 of 2 texts, " in caplog.text
    assert ", ," not in caplog.text
