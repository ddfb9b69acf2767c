"""Runs the commands of the guides, as a reader would: in a shell, in an environment of its own, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def commands(guide: str) -> str:
    """Return what a guide tells the reader to type, as one script."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / guide).read_text(encoding="utf-8"), re.M | re.S))


@pytest.fixture
def shell(tmp_path):
    """Return a function that runs a script where `python`, `pip` and `embfit` are those of a fresh environment."""
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    [site] = home.glob("lib/python*/site-packages")
    (site / "packages_of_the_tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    for name, body in {"embfit": "-m embfit", "pip": "-m pip"}.items():
        program = home / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{home}/bin/python" {body} "$@"\n')
        program.chmod(0o755)
    offline = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_QUIET": "1"}
    environment = {
        name: value for name, value in os.environ.items() if name not in ("EMBFIT_CONFIG_PATH", "PYTHONPATH")
    }
    environment |= {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "XDG_CONFIG_HOME": str(tmp_path / "xdg"), **offline}

    def run(script: str) -> str:
        work = tmp_path / "work"
        work.mkdir()
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_share_a_config_between_teams(shell):
    pytest.importorskip("hatchling", reason="packs are built with hatchling")
    told = [" ".join(line.split()) for line in shell(commands("sharing.md")).splitlines()]
    assert "legal-search==0.1.0 passes; choices checked: 3" in told
    assert "team-b passes; choices checked: 1" in told
    guide = (ROOT / "docs" / "sharing.md").read_text(encoding="utf-8")
    shown = [" ".join(line.split()) for line in guide.splitlines() if line.startswith("training.")]
    assert len(shown) == 3
    assert set(shown) <= set(told)
