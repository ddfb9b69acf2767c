"""A small house for tests of composition: its own `conf`, and a config pack with the code that it names."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embfit.compose import search_path

HOUSE = Path(__file__).parent / "house"


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Stand in for embfit's `conf`; the working directory is a temporary folder, which is returned."""
    monkeypatch.syspath_prepend(str(HOUSE / "packs"))
    monkeypatch.setattr(search_path, "house", lambda: search_path.ConfigSource("embfit", HOUSE / "conf"))
    monkeypatch.delenv("EMBFIT_CONFIG_PATH", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    level, before = root.level, list(root.handlers)
    yield tmp_path
    root.setLevel(level)
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
    logging.captureWarnings(False)
    for name in [name for name in sys.modules if name.split(".")[0] == "acme"]:
        del sys.modules[name]
