"""Fixtures: thresholds at which a collection of twelve documents is spread, in several parts."""

from __future__ import annotations

from importlib import import_module

import pytest

SMALL = {
    "embfit.model.encoder.default_token_budget": lambda device: 40,
    "embfit.model.cross_encoder.default_token_budget": lambda device: 120,
    "embfit.model.embed.SHARED_FROM": 1,
    "embfit.model.distributed_encoding.PART_TOKENS": 30,
    "embfit.model.distributed_encoding.SECONDS": 0.0,  # each part is noted at once
    "embfit.model.scoring.SPREAD_FROM": 1,
    "embfit.model.distributed_scoring.PART_TOKENS": 300,
    "embfit.index.exact.SPREAD_FROM": 1,
    "embfit.index.distributed_search.PART_VECTORS": 5,
}
"""Batches of two or three texts, and parts of a batch or two."""


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread what a test has, however little it is."""
    _set(monkeypatch)


def set_small_parts() -> None:
    """Do the same for the rest of a process."""
    _set(pytest.MonkeyPatch())


def _set(patch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        module, _, attribute = name.rpartition(".")
        patch.setattr(import_module(module), attribute, value)  # `embfit.model.embed` is a function, too
