"""Two gloo processes against one, in processes of their own with a time limit, so that ranks that wait fail."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from embfit.app import main
from embfit.errors import DEVICE_MEMORY
from embfit.loss import InfoNCE
from embfit.model import Encoder, Pretrained, save_encoder
from embfit.run.child_process import ChildProcess
from embfit.run.devices import Devices
from embfit.training import Training
from embfit.training.memory_estimate import estimate_memory
from embfit.training.ranks import launch
from embfit.training.ranks.units import shard_size
from tests.conftest import TEXTS

ROOT = Path(__file__).parents[3]
SECONDS = 900  # all cases; most of it is importing torch
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.timeout(SECONDS + 60)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have written what each case of `two_ranks.py` did."""
    folder = tmp_path_factory.mktemp("cases")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "tests.training.ranks.two_ranks", str(folder)]
    with (folder / "0.txt").open("w") as output:
        done = subprocess.run(
            command, cwd=ROOT, env=ENVIRONMENT | meeting, stdout=output, stderr=output, check=False, timeout=SECONDS
        )
    assert done.returncode == 0, "\n".join(words.read_text()[-3000:] for words in sorted(folder.glob("?.txt")))
    return folder


def on_one_and_two(case: str, cases: Path) -> tuple[Any, Any]:
    folder = cases / case
    assert (folder / "found.pt").exists(), (folder / "failure.txt").read_text()
    found = torch.load(folder / "found.pt", weights_only=False)
    assert not list(folder.rglob("job.pt"))
    return found[1], found[2]


def test_two_ranks_have_the_loss_and_gradients_of_one(cases: Path) -> None:
    one, two = on_one_and_two("at rest", cases)
    assert one.keys() == two.keys()
    assert len(one) == 6
    for case in one:
        assert len(one[case]) == len(two[case]) == 3
        for alone, together in zip(one[case], two[case], strict=True):
            assert alone.keys() == together.keys(), case
            assert any("lora" in name for name in alone) == (case == "adapter")
            assert ("encoder.expert" in alone) == (case == "guided, topical, an expert" and alone is one[case][1])
            assert ("loss.log_excess" in alone) == (case in ("micro-batches", "none kept"))
            for name, value in alone.items():
                same = partial("{}, {}: {}".format, case, name)
                torch.testing.assert_close(together[name], value, atol=1e-5, rtol=1e-5, msg=same)
        assert all(step["loss"] > 0.01 for step in one[case])


def test_ranks_stop_together_and_keep_the_best_weights(cases: Path) -> None:
    one, two = on_one_and_two("fit", cases)
    assert (two["stopped"], two["steps"], two["kept_step"]) == ("plateau", 12, 6)
    assert (one["stopped"], one["steps"], one["kept_step"]) == ("plateau", 12, 6)
    torch.testing.assert_close(two["vectors"], one["vectors"], atol=1e-3, rtol=0)


def test_what_fails_on_every_rank_is_told_as_on_one(cases: Path) -> None:
    one, two = on_one_and_two("failing", cases)
    assert one == two
    assert one.startswith("UserError: the loss is nan in step")


def test_ranks_go_on_together(cases: Path) -> None:
    for whole, killed in on_one_and_two("resumed", cases):
        assert torch.equal(whole, killed)


def test_a_rank_that_fails_ends_the_others(cases: Path) -> None:
    one, two = on_one_and_two("dying", cases)
    assert one == "none"
    assert two == f"UserError: rank 1 of 2 failed: MemoryError: no more ({cases / 'dying' / '2' / 'rank-1.txt'})"


def test_a_rank_that_is_lost_is_named_with_what_to_do(cases: Path) -> None:
    """It dies before it has joined the others, or among them, and nobody waits for it."""
    one, two = on_one_and_two("lost", cases)
    assert one == {"strange": "none", "killed early": "none", "killed": "none"}
    killed = "it was killed by signal 9 (SIGKILL), as by a machine without memory; lower trainer.devices or"
    for name, words in {
        "strange": "cannot import what is trained (No module named 'only_here'); define it in a module that every",
        "killed early": killed,
        "killed": killed,
    }.items():
        assert two[name].startswith(f"UserError: rank 1 of 2 failed: {words} ")
        assert two[name].endswith(f" ({cases / 'lost' / '2' / name / 'rank-1.txt'})")


def test_ranks_that_share_weights_have_the_loss_and_gradients_of_those_that_have_all(cases: Path) -> None:
    """Three steps each, with gradients after clipping; only the orders of sums differ."""
    plain, sharded = on_one_and_two("in shards", cases)
    assert plain.keys() == sharded.keys()
    assert len(plain) == 10
    for case in plain:
        assert len(plain[case]) == len(sharded[case]) == 3
        for alone, together in zip(plain[case], sharded[case], strict=True):
            assert alone.keys() == together.keys(), case
            assert any("lora" in name for name in alone) == ("adapter" in case)
            for name, value in alone.items():
                same = partial("{}, {}: {}".format, case, name)
                torch.testing.assert_close(together[name], value, atol=1e-5, rtol=1e-5, msg=same)
        assert all(step["loss"] > 0.01 and step["norm"] > 0.5 for step in plain[case])
    for step in sharded["micro-batches"]:
        parts = [value.norm() for name, value in step.items() if name not in ("loss", "norm")]
        assert float(torch.stack(parts).norm()) == pytest.approx(0.5, rel=1e-5)


def test_ranks_that_share_weights_measure_keep_and_resume_as_others(cases: Path) -> None:
    plain, sharded = on_one_and_two("fit in shards", cases)
    assert (sharded["stopped"], sharded["steps"], sharded["kept_step"]) == ("plateau", 12, 6)
    torch.testing.assert_close(sharded["vectors"], plain["vectors"], atol=1e-4, rtol=0)
    (whole, _), (sharded, killed) = on_one_and_two("resumed in shards", cases)
    assert torch.equal(sharded, killed)
    torch.testing.assert_close(sharded, whole, atol=1e-4, rtol=0)
    _, (sharded, other_before) = on_one_and_two("resumed in other shards", cases)
    torch.testing.assert_close(other_before, sharded, atol=1e-4, rtol=0)
    plain, sharded = on_one_and_two("mined again in shards", cases)
    assert len(plain) == len(sharded) == 3
    for alone, together in zip(plain, sharded, strict=True):
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    plain, sharded = on_one_and_two("ranked in shards", cases)
    torch.testing.assert_close(sharded, plain, atol=1e-3, rtol=0)


def test_ranks_that_share_weights_fail_together(cases: Path) -> None:
    plain, sharded = on_one_and_two("failing in shards", cases)
    assert plain == sharded
    _, dying = on_one_and_two("dying in shards", cases)
    told = cases / "dying in shards" / "2" / "rank-1.txt"
    assert dying == f"UserError: rank 1 of 2 failed: MemoryError: no more ({told})"
    _, killed = on_one_and_two("killed in shards", cases)
    assert killed.startswith("UserError: rank 1 of 2 failed: it was killed by signal 9 (SIGKILL)")
    assert killed.endswith(f" ({cases / 'killed in shards' / '2' / 'rank-1.txt'})")


def test_a_rank_holds_what_the_estimate_says(cases: Path, make_encoder: Callable[..., Encoder], tmp_path: Path) -> None:
    """The pooler of BERT has no gradient here, and therefore no moments."""
    encoder = make_encoder()
    save_encoder(encoder, tmp_path)
    found = estimate_memory(Pretrained(str(tmp_path)), Training(), InfoNCE(), 2, 0, sharded=True)
    pooler = 4 * (32 // 2 * 32 + 32 // 2)
    plain, sharded = on_one_and_two("held", cases)
    for step in plain:
        weights = 4 * sum(weight.numel() for weight in encoder.parameters())
        assert [rank["weights"] for rank in step["ranks"]] == [weights, weights]
    for step in sharded:
        assert step["graph"] == pytest.approx(
            plain[0]["graph"], rel=0.1
        )  # what is gathered for a pass is not its graph
        first, second = step["ranks"]
        assert first == {
            "weights": found.weights,
            "gradients": found.gradients - pooler,
            "moments": found.moments - 2 * pooler,
        }
        assert (second["weights"], second["gradients"]) == (first["weights"], first["gradients"])  # with padding
        rest = sum(4 * shard_size(weight.shape, 2, 1) for weight in encoder.parameters())
        assert second["moments"] == 2 * (rest - pooler)


def test_the_first_rank_that_failed_is_named(tmp_path: Path) -> None:
    """Two and three of four fail; three lost its connection to two."""
    said = {1: "", 2: "torch.OutOfMemoryError: CUDA out of memory. Tried", 3: "RuntimeError: Connection closed by peer"}
    codes = {1: 0, 2: 1, 3: 1}
    children = {}
    for moment, (rank, words) in enumerate(said.items()):
        path = tmp_path / f"rank-{rank}.txt"
        path.write_text(f"Traceback\n[rank{rank}]: {words}\n")
        os.utime(path, ns=(moment, moment))
        process = subprocess.Popen([sys.executable, "-c", f"exit({codes[rank]})"])
        children[rank] = ChildProcess(process, path)
    found = launch._lost(children, HashStore(), Devices(("cpu",) * 4))
    assert found == f"rank 2 of 4 failed: {DEVICE_MEMORY} ({tmp_path / 'rank-2.txt'})"


@pytest.fixture
def sweep(make_encoder: Callable[..., Encoder], tmp_path: Path) -> list[str]:
    """The command line of a sweep over two learning rates, on two ranks, of the tiny encoder."""
    save_encoder(make_encoder(), tmp_path / "tiny")
    pairs = [{"query": " ".join(text.split()[:4]), "positive": text} for text in TEXTS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return [
        *("-m", "training.lr=1e-3,1e-4", "model=custom", f"model.path={tmp_path / 'tiny'}"),
        *("data=pairs", f"data.path={tmp_path / 'pairs.jsonl'}", "miner=none", "training.steps=3"),
        *("training.batch_size=2", "training.precision=fp32", "logger=csv", "evaluator.bm25=false"),
        *("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "run.dir=sweep"),
    ]


def run_here(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().err


def run_by_torchrun(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "embfit", *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.parametrize("run", [run_here, run_by_torchrun])
def test_a_sweep_on_two_ranks_trains_each_trial_once(
    run: Callable[..., str],
    sweep: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(sweep, capsys).count("step 3: dev ndcg@10") == 2
    for trial in ("0", "1"):
        folder = tmp_path / "sweep" / trial
        assert json.loads((folder / "status.json").read_text())["state"] == "done"
        assert json.loads((folder / "training.json").read_text())["steps"] == 3
        assert (folder / "model" / "model.safetensors").is_file()
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()) == ["0", "1", "conf"]
