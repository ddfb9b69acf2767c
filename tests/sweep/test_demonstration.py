"""Sweeps as they are used, on real collections with a small encoder: killed, failing, side by side, on two ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embfit.model import Encoder, save_encoder
from embfit.run.record import read_state

ROOT = Path(__file__).parents[2]
SWEEP = Path("sweep")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def command(make_encoder: Callable[..., Encoder], tmp_path: Path) -> list[str]:
    """A sweep's command line on the two-layer encoder: one step of training, few queries."""
    save_encoder(make_encoder(), tmp_path / "tiny")
    return [
        *(sys.executable, "-m", "embfit", "-m", "model=custom", f"model.path={tmp_path / 'tiny'}"),
        *("data.max_train=64", "training.steps=1", "training.batch_size=32", "training.precision=fp32"),
        *("evaluator.bm25=false", "evaluator.resamples=100", "logger=csv", f"run.dir={SWEEP}"),
    ]


@pytest.fixture(params=["python-docs", "scifact"])
def collection(request: pytest.FixtureRequest, shared_data: Path) -> list[str]:
    if request.param == "python-docs":
        return ["data=python-docs"]
    return ["data=beir", f"data.path={shared_data / 'scifact'}"]


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "said.txt").open("a") as said:
        return subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, text=True, env=environment)


def finish(command: list[str], folder: Path) -> int:
    return start(command, folder).wait(timeout=1500)


def jobs(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / SWEEP / "summary.json").read_text())["jobs"]


def logs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted((folder / SWEEP).glob("*/log.txt")))


def entries(folder: Path, kind: str) -> int:
    return len(list((folder / "outputs" / "store" / kind).glob("*/key.json")))


def test_twelve_jobs_with_one_that_fails_killed_half_way(command, collection, tmp_path):
    axes = ["loss=infonce,mrl", "training.lr=2e-5,5e-5", "training.warmup=0,0.1,0.2"]
    command = [*command, *collection, *axes]
    wrong = tmp_path / SWEEP / "3" / "log.txt"
    wrong.mkdir(parents=True)  # a folder where a file should be

    running = start(command, tmp_path)
    while read_state(tmp_path / SWEEP / "6") is None:
        assert running.poll() is None, (tmp_path / "said.txt").read_text()[-2000:]
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    before = {number: (tmp_path / SWEEP / str(number) / "status.json").read_text() for number in (0, 1, 2, 4, 5)}

    assert finish(command, tmp_path) == 1
    found = jobs(tmp_path)
    assert [job["state"] for job in found] == ["done"] * 3 + ["failed"] + ["done"] * 8
    assert "Is a directory" in found[3]["error"]
    assert {number: (tmp_path / SWEEP / str(number) / "status.json").read_text() for number in before} == before

    wrong.rmdir()
    assert finish(command, tmp_path) == 0
    assert [job["state"] for job in jobs(tmp_path)] == ["done"] * 12
    assert all(job["values"]["dev.ndcg@10"] is not None for job in jobs(tmp_path))
    assert entries(tmp_path, "negatives") == 1
    assert logs(tmp_path).count("reusing negatives from the store") >= 11
    assert (tmp_path / SWEEP / "conf" / "experiment" / "best.yaml").is_file()
    assert (tmp_path / SWEEP / "summary.html").read_text().count("<svg") == 2


def test_four_parallel_jobs_build_each_key_once(command, tmp_path):
    rates = "training.lr=1e-5,2e-5,3e-5,4e-5"
    assert finish([*command, "launcher=parallel", "launcher.max_parallel=4", rates], tmp_path) == 0
    assert [job["state"] for job in jobs(tmp_path)] == ["done"] * 4
    starts = [json.loads((tmp_path / SWEEP / str(job) / "status.json").read_text())["started"] for job in range(4)]
    ends = [json.loads((tmp_path / SWEEP / str(job) / "status.json").read_text())["finished"] for job in range(4)]
    assert max(starts) < min(ends)  # they ran at the same time
    said = logs(tmp_path)
    for kind in ("collection", "negatives"):
        assert entries(tmp_path, kind) == 1
        assert said.count(f"reusing {kind} from the store") == 3  # and one job built it


def test_a_search_on_two_ranks_trains_each_trial_once(command, tmp_path):
    pytest.importorskip("optuna")
    ranks = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    search = ["sweep=optuna", "sweep.trials=3", "sweep.prune_startup=1", "training.lr=tag(log,interval(1e-5,1e-2))"]
    command = [*command, *ranks, *search, "training.steps=null", "training.epochs=3"]
    assert finish(command, tmp_path) == 0
    found = jobs(tmp_path)
    assert len(found) == 3
    assert {job["state"] for job in found} <= {"done", "pruned"}
    assert found[0]["point"] == {"training.lr": "5e-05"}  # the default comes first
    for job in found:
        log = (tmp_path / SWEEP / str(job["number"]) / "log.txt").read_text()
        assert log.count("training on 2 ranks") == 1
        steps = [line.partition("step ")[2].partition(":")[0] for line in log.splitlines() if ": dev ndcg@10" in line]
        assert steps == sorted(set(steps), key=int)  # each validation once
        assert log.count("training on 64 examples") == 1
