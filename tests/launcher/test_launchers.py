"""Two jobs under each launcher, on the small house: failures are told, and the sweep can be resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embfit.app import main
from embfit.launcher import Parallel, Slurm, worker
from embfit.launcher.prepared_job import JOBS, PreparedJob
from embfit.run.record import read_state
from tests.compose.conftest import house  # noqa: F401
from tests.launcher.fake_slurm import install
from tests.test_app import script

SWEEP = Path("outputs/sweeps")
ELSEWHERE = [
    ["+launcher=parallel", "launcher.max_parallel=2"],
    ["+launcher=slurm", "launcher.cluster=local", "launcher.gpus=0"],
]


def states() -> list[str]:
    return [job["state"] for job in json.loads((SWEEP / "summary.json").read_text())["jobs"]]


@pytest.mark.parametrize("launcher", ELSEWHERE, ids=["parallel", "slurm"])
def test_two_jobs_run_elsewhere_and_one_that_fails_is_told(house, capsys, launcher):  # noqa: F811
    if launcher[0].endswith("slurm"):
        pytest.importorskip("submitit")
    command = ["-m", *launcher, "task=score", "model.path=a,bug"]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert states() == ["done", "failed"]
    assert "failed: unexpected KeyError: 'missing'" in out
    assert "embfit: error: job 1 (task=score, model.path=bug): unexpected KeyError: 'missing'" in err
    assert "missing" in (SWEEP / "1" / "log.txt").read_text()
    provenance = json.loads((SWEEP / "0" / "provenance.json").read_text())["values"]
    assert provenance["model.path"]["source"] == "command line"
    assert provenance["run.sweep"] == {"value": str(SWEEP.absolute()), "source": "sweep"}
    Path("mended").touch()
    assert main(command) == 0
    assert states() == ["done", "done"]
    assert (SWEEP / "1" / "log.txt").read_text().count("scoring") == 2


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> list[str]:
    """A cluster of one machine, through submitit's own code for SLURM; what to choose it with is returned."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(install(tmp_path / "slurm")), prepend=os.pathsep)
    return ["+launcher=slurm", "launcher.gpus=0"]


def test_two_jobs_on_a_cluster(house, capsys, cluster):  # noqa: F811
    command = ["-m", *cluster, "task=score", "model.path=a,bug"]
    assert main(command) == 1
    assert states() == ["done", "failed"]
    assert (
        "embfit: error: job 1 (task=score, model.path=bug): unexpected KeyError: 'missing'" in capsys.readouterr().err
    )
    script, *_ = (SWEEP / JOBS).rglob("*.sh")
    assert "#SBATCH --array=0-1%2" in script.read_text().splitlines()
    Path("mended").touch()
    assert main(command) == 0
    assert states() == ["done", "done"]


def test_jobs_of_a_sweep_that_was_lost_are_found_again(tmp_path, cluster):
    command = [*script(tmp_path), "-m", *cluster, "model.path=a,nap"]
    lost = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: "asleep" in "".join(file.read_text() for file in (tmp_path / SWEEP).glob(f"{JOBS}/*/*_log.out")))
    os.kill(lost.pid, signal.SIGKILL)
    lost.wait(timeout=30)
    with (tmp_path / "said.txt").open("w") as said:
        again = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=said)
    wait_for(lambda: "job 1 (model.path=nap) was submitted before, as " in (tmp_path / "said.txt").read_text())
    (tmp_path / "awake").touch()
    assert again.wait(timeout=60) == 0
    assert (tmp_path / SWEEP / "1" / "log.txt").read_text().count("counting") == 1


def prepared(number: int, folder: Path) -> PreparedJob:
    return PreparedJob(
        number, {"run": {"dir": str(folder / str(number))}}, {"choices": {}, "values": {}}, [f"seed={number}"]
    )


def test_each_job_has_a_device_of_its_own(tmp_path, monkeypatch):
    """The worker is replaced by a program that writes down its environment."""
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        "assert sys.argv[-1] == str(os.getppid())\n"
        "open(sys.argv[-2] + '.seen', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'] + os.environ['OMP_NUM_THREADS'])\n"
        "time.sleep(0.5)\nsys.exit(3 * sys.argv[-2].endswith('2.json'))\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    jobs = [prepared(number, tmp_path) for number in range(4)]
    errors = Parallel(devices=[3, 5], threads=2).launch(jobs, tmp_path, lambda: None)
    assert [error is None for error in errors] == [True, True, False, True]
    assert errors[2] == f"its process ended with exit code 3; see {tmp_path / JOBS / '2.txt'}"
    seen = [(tmp_path / JOBS / f"{number}.json.seen").read_text() for number in range(4)]
    assert sorted(seen) == ["32", "32", "52", "52"]
    assert seen[0] != seen[1]  # they ran at the same time


def test_a_sweep_that_is_killed_takes_its_jobs_along(tmp_path):
    command = [*script(tmp_path), "-m", "+launcher=parallel", "launcher.max_parallel=2", "model.path=a,sleep"]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    said = tmp_path / SWEEP / JOBS / "1.txt"
    wait_for(lambda: said.is_file() and "asleep" in said.read_text())
    os.kill(running.pid, signal.SIGKILL)
    running.wait(timeout=30)
    wait_for(lambda: read_state(tmp_path / SWEEP / "1") == "interrupted")
    assert read_state(tmp_path / SWEEP / "0") == "done"


def test_a_job_whose_sweep_was_gone_before_it_began_ends(monkeypatch):
    signals = []
    monkeypatch.setattr(os, "kill", lambda *told: signals.append(told))
    worker._end_with(os.getppid() + 1)
    assert signals == [(os.getpid(), signal.SIGTERM)]


def wait_for(condition, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def test_a_sweep_of_which_nothing_ran_has_no_table(house, capsys, monkeypatch):  # noqa: F811
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["-m", "+launcher=slurm", "task=score", "seed=1,2"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert 'embfit: error: launcher=slurm: Could not detect "srun"' in err
    assert not list(SWEEP.glob("summary.*"))


def test_the_ranks_of_a_job_are_named_before_it_has_an_environment(house, capsys, monkeypatch):  # noqa: F811
    file = house / "team" / "trainer" / "slurm.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# When.\n# python -m embfit\n_target_: acme.rooms.Trainer\n_partial_: true\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    assert main(["-m", "+launcher=slurm", "task=score", "trainer=slurm", "seed=1,2"]) == 2
    assert capsys.readouterr().err.count("trainer: trainer=slurm reads the environment of a running job") == 1
    assert main(["-m", "+launcher=slurm", "launcher.ranks=2", "task=score", "seed=1,2"]) == 2
    assert "trainer.devices: auto is not the 2 processes that launcher.ranks starts on each" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("launcher", "trainer", "keys"),
    [
        ({}, {"devices": "auto", "num_nodes": 1}, []),
        ({"ranks": 4, "nodes": 2}, {"devices": 4, "num_nodes": 2}, []),
        ({"ranks": 2}, {"devices": [0, 3], "num_nodes": 1}, []),
        ({"ranks": 4, "nodes": 2}, {"devices": "auto", "num_nodes": 1}, ["trainer.devices", "trainer.num_nodes"]),
        ({"nodes": 2}, {"devices": 1, "num_nodes": 1}, ["trainer.num_nodes"]),
        ({"ranks": 2}, {}, ["trainer.devices"]),
    ],
)
def test_the_trainer_has_the_launchers_ranks(launcher, trainer, keys):
    assert [problem.key for problem in Slurm(**launcher).trainer_problems("ddp", trainer)] == keys


@pytest.mark.parametrize(
    ("cluster", "keys"),
    [(None, []), ({"workers": 2}, []), ({"address": "of another kind"}, []), ({"workers": None}, ["cluster.workers"])],
)
def test_jobs_at_a_time_share_a_cluster_by_number(cluster, keys):
    problems = list(Parallel().cluster_problems(cluster))
    assert [problem.key for problem in problems] == keys
    assert all("takes every CPU of the cluster for one job" in problem.message for problem in problems)


def test_no_cluster_is_a_debugger(house, capsys):  # noqa: F811
    assert main(["-m", "+launcher=slurm", "launcher.cluster=debug", "task=score", "seed=1,2"]) == 2
    assert 'launcher.cluster: expected one of slurm, local, got "debug"' in capsys.readouterr().err


def test_what_slurm_is_asked(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    executor = Slurm(
        partition="gpu",
        account="search",
        minutes=90,
        ranks=4,
        gpus=4,
        memory_gb=64,
        max_parallel=2,
        setup=["module load cuda"],
        options={"constraint": "a100"},
    )._executor(tmp_path)
    executor._executor.parameters["map_count"] = 3
    text = executor._executor._make_submission_file_text("work", "uid").splitlines()
    for line in (
        "#SBATCH --partition=gpu",
        "#SBATCH --account=search",
        "#SBATCH --time=90",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=64GB",
        "#SBATCH --array=0-2%2",
        "#SBATCH --constraint=a100",
        "module load cuda",
    ):
        assert line in text
