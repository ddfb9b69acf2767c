"""Loggers of embfit's own, offline: what they keep of a run, and how its sweep is found.

MLflow and W&B are not part of the development installation. With `pip install 'embfit[mlflow,wandb]'` beside it these
tests run.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from embfit.compose.build import make
from embfit.compose.composition import compose, hydra_session, resolve_all
from embfit.compose.loader import make_loader
from embfit.logger.settings import run_name, settings


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A run's folder with its configuration; the working directory is above it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "sweeps" / "2026-03-01" / "10-00-00" / "3"
    folder.mkdir(parents=True)
    config = {"training": {"lr": 1e-5}, "run": {"dir": str(folder)}, "store": {"dir": "x"}, "seed": 3}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_what_a_server_is_told(run):
    assert run_name(str(run)) == "10-00-00/3"
    assert run_name("outputs/finetune/2026-03-01/10-00-00") == "finetune/2026-03-01/10-00-00"
    assert settings(str(run)) == {"training.lr": 1e-5, "seed": 3}
    assert settings("nowhere") == {}


def test_several_loggers_at_once():
    loader = make_loader()
    with hydra_session(loader):
        values, origins = resolve_all(loader, ["logger=[tensorboard,csv,mlflow]", "logger.mlflow.experiment=ours"])
    assert list(values["logger"]) == ["tensorboard", "csv", "mlflow"]
    assert values["logger"]["mlflow"]["run"] == values["run"]["dir"]
    assert origins["logger.mlflow.experiment"] == "command line"
    assert list(compose(loader, ["logger=[tensorboard,csv]", "~logger.csv"]).logger) == ["tensorboard"]


def log(logger) -> None:
    logger.log_metrics({"train/loss": 0.5}, step=1)
    logger.log_metrics({"train/loss": 0.25}, step=2)
    logger.finalize("success")


def test_mlflow_makes_its_database_without_a_word(run, tmp_path):
    pytest.importorskip("mlflow", reason="pip install 'embfit[mlflow]'")
    made = f"MLflow(run={str(run)!r}, sweep=None).log_metrics({{'train/loss': 0.5}}, step=1)"
    program = f"import logging; logging.basicConfig(level=logging.INFO)\nfrom embfit.logger import MLflow\n{made}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_mlflow_keeps_numbers_settings_and_the_sweep(run):
    mlflow = pytest.importorskip("mlflow", reason="pip install 'embfit[mlflow]'")
    node = {"_target_": "embfit.logger.MLflow", "run": str(run), "sweep": str(run.parent)}
    log(make(node, "logger"))
    client = mlflow.MlflowClient("sqlite:///outputs/mlflow.db")
    experiment = client.get_experiment_by_name("embfit")
    [found] = client.search_runs([experiment.experiment_id], f"tags.`embfit.sweep` = '{run.parent}'")
    assert found.info.run_name == "10-00-00/3"
    assert found.info.status == "FINISHED"
    assert found.data.tags["embfit.run"] == str(run)
    assert found.data.params == {"training.lr": "1e-05", "seed": "3"}
    steps = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in steps] == [(1, 0.5), (2, 0.25)]


def test_wandb_runs_of_a_sweep_are_a_group_and_end_one_by_one(run):
    wandb = pytest.importorskip("wandb", reason="pip install 'embfit[wandb]'")
    names = []
    for number in (3, 4):
        folder = run.with_name(str(number))
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text((run / "config.yaml").read_text())
        node = {"_target_": "embfit.logger.WandB", "run": str(folder), "sweep": str(run.parent), "offline": True}
        logger = make(node, "logger")
        logger.log_metrics({"train/loss": 0.5}, step=1)
        assert logger.experiment.group == "sweeps/2026-03-01/10-00-00"
        assert logger.experiment.config["training.lr"] == 1e-5
        names.append(logger.experiment.name)
        logger.finalize("success")
        assert wandb.run is None
        assert len(list(folder.glob("wandb/offline-run-*/run-*.wandb"))) == 1
    assert names == ["10-00-00/3", "10-00-00/4"]
