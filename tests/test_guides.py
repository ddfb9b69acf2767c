"""Holds the guides to the program: what they show it saying, and what they tell the reader to type, in order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from embfit.app import main
from tests.launcher.fake_slurm import install

SECONDS = 900
SMALL = "experiment=first-look data.packages=[logging,email] training.steps=1 evaluator.resamples=100"  # as in a guide
ROOT = Path(__file__).parents[1]


def commands(guide: str) -> str:
    """Return what a guide tells the reader to type, as one script."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / guide).read_text(encoding="utf-8"), re.M | re.S))


def shown(guide: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a guide that stand behind a `$`, each with the lines that it shows of what they say."""
    text = (ROOT / guide).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n\$ python -m embfit (.*)\n((?:.*\n)*?)```", text, re.MULTILINE)
    return [(command, [line for line in lines.splitlines() if line not in ("", "…")]) for command, lines in blocks]


SHOWN = [
    (command, lines)
    for page in ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))]
    for command, lines in shown(page)
]


@pytest.mark.parametrize(("command", "lines"), SHOWN, ids=[command for command, _ in SHOWN])
def test_what_a_guide_shows_is_what_the_program_says(command, lines, tmp_path, monkeypatch, capsys):
    if "trainer=gpu" in command and torch.cuda.is_available():
        pytest.skip("says that there is no GPU")
    example = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "experiment.md").read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "team" / "experiment" / "contracts.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(example[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", "team")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    main(shlex.split(command))
    told = [" ".join(line.split()) for line in "".join(capsys.readouterr()).splitlines()]
    wanted = [" ".join(line.split()) for line in lines]
    assert [line for line in told if line in wanted] == wanted, "\n".join(told)


def test_some_commands_are_shown():
    assert len(SHOWN) >= 4


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
        work.mkdir(exist_ok=True)
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
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


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_run_a_sweep(shell):
    told = shell(commands("sweep.md").replace("experiment=first-look", SMALL))
    first, second, explained = told.split("summary  outputs/sweeps/first/summary.html")
    assert "2 of 2 jobs done; best dev.ndcg@10" in first
    assert "tuned − base" in first
    assert "2 of 2 jobs done; best dev.ndcg@10" in second
    assert "tuned − base" not in second  # nothing was run
    assert "outputs/sweeps/first/conf/experiment/best.yaml:" in explained
    assert "over 5e-05 in conf/training/in-batch.yaml" in explained


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_run_on_slurm(shell, tmp_path):
    """The guide's commands on a cluster of one machine, with two ranks in the place of four GPUs."""
    pytest.importorskip("submitit")
    programs = install(tmp_path / "slurm")
    script = commands("slurm.md").replace("experiment=first-look", SMALL)
    script = script.replace("-per-node=4", "-per-node=2").replace("trainer.devices=4", "trainer.devices=2")
    script = script.replace("trainer=ddp", "trainer=ddp trainer.accelerator=cpu").replace("launcher.partition=gpu", "")
    script = script.replace("-m launcher=slurm  ", "-m launcher=slurm launcher.gpus=0 ")
    status = "outputs/four-gpus/status.json"
    ended = f"until grep -qE 'done|failed' {status}; do sleep 1; done; cat {status}"
    told = shell(f"export PATH={programs}:$PATH\n{script}\n{ended}")
    assert told.count("2 of 2 jobs done; best dev.ndcg@10") == 2
    assert '"state": "done"' in told[-400:]
    work = tmp_path / "work" / "outputs"
    assert (work / "four-gpus" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_two_packs_and_a_users_file_in_a_fresh_environment(shell, tmp_path):
    pytest.importorskip("hatchling", reason="packs are built with hatchling")
    own = tmp_path / "xdg" / "embfit" / "trainer" / "my-machine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# Here.\n# python -m embfit trainer=my-machine\ndefaults: [cpu, _self_]\nlog_every_n_steps: 5\n")
    packs = " ".join(str(ROOT / "tests" / "packs" / name) for name in ("acme-legal", "globex-search"))
    told = shell(
        f"pip install {packs}\nembfit pack list\n"
        "embfit --explain experiment=globex-contracts data.path=DIR trainer=my-machine training.lr=1e-5"
    )
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in told.splitlines() if line.split()}
    assert rows["training.epochs"] == (
        "1 globex-search==0.3:experiment/globex-contracts.yaml:11, over 2 in acme-legal==2.1:experiment/"
        "acme-recipe.yaml:10, over 3 in conf/training/in-batch.yaml:4"
    )
    assert rows["training.lr"].startswith(
        "1e-05 command line, over 2e-05 in acme-legal==2.1:experiment/acme-recipe.yaml:9"
    )
    assert rows["loss.temperature"].endswith("acme-legal==2.1:loss/acme-cautious.yaml:4")
    assert rows["trainer.log_every_n_steps"] == f"5 {own}:4, over 1 in conf/trainer/auto.yaml:12"
