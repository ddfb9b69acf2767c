"""Stand-ins for what a configuration calls, small enough to be imported in no time."""

import errno
import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from embfit.compose.tasks import task
from embfit.errors import UserError


@dataclass(frozen=True)
class Model:
    path: str | None = "small"
    depth: Annotated[int, Field(ge=1)] = 3
    pooling: Literal["cls", "mean"] = "mean"
    rate: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.depth > 100:
            raise ValueError(f"depth={self.depth} exceeds 100; lower it")


class Loss:
    def __init__(self, temperature: float = 0.05) -> None:
        self.temperature = temperature


class Nested:
    def __init__(self, loss: Loss, dims: Sequence[Annotated[int, Field(ge=1)]] | None = None) -> None:
        self.loss = loss
        self.dims = dims


class Trainer:
    def __init__(self, devices: int | str = "auto", callbacks: list[object] | None = None, **rest: object) -> None:
        self.devices = devices
        self.callbacks = callbacks
        self.rest = rest


@dataclass
class Callback:
    patience: int = 1


@task(
    outputs=("result.txt", "checkpoints", "training.json"),
    costly=("checkpoints/step.pt", "training.json"),
    free_text=("query",),
)
def count(model, loss, run, seed, store, query=None, top: int = 3):
    """A task that ends as model.path says."""
    with run.stage("counting"):
        print(f"counted to {top} with {model.path}, seed {seed}")
        match model.path:
            case "user error":
                raise UserError("queries.jsonl:4: no _id; give each query one")
            case "bug":
                raise KeyError("missing")
            case "full disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "outputs/count/model.bin")
            case "exit after interrupt":  # as Lightning does
                try:
                    raise KeyboardInterrupt
                except KeyboardInterrupt:
                    raise SystemExit(1)  # noqa: B904
            case "sleep":
                print("asleep", flush=True)
                time.sleep(60)
            case "nap":
                print("asleep", flush=True)
                while not Path("awake").exists():
                    time.sleep(0.1)
            case "terminated":
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
    (run.dir / "result.txt").write_text(f"{top} {run.resuming} {query}")


@task(outputs=("report.json", "checkpoints", "training.json"))
def score(model, loss, run, store):
    """A task that does best at a rate of 0.3 and a temperature of 0.05, and fails or stops as model.path says."""
    with run.stage("scoring"):
        store.entry("mined", {"depth": model.depth}, lambda folder: None, version=1)
        if model.path == "bug" and not Path("mended").exists():
            raise KeyError("missing")
        if model.path == "stop" and not Path("mended").exists():
            raise KeyboardInterrupt
        value = 1 - (model.rate - 0.3) ** 2 - (loss.temperature - 0.05) ** 2
        history = [{"step": 0, "ndcg@10": 0.1}, {"step": 5, "ndcg@10": value}]
        tuned = {"ndcg@10": value - 0.1}
        queries = {"ndcg@10": {f"q{number}": value - 0.1 for number in range(4)}}
        systems = {
            "base": {"metrics": {"ndcg@10": 0.2}},
            "tuned": {"metrics": tuned, "split": "test", "per_query": queries},
        }
        report = {"systems": systems, "training": {"kept_step": 5, "history": history}}
        (run.dir / "report.json").write_text(json.dumps(report))


def fit(trainer, loss):
    """A task that calls the trainer."""
    made = trainer(max_steps=3)
    print(type(made).__name__, made.devices, made.callbacks, sorted(made.rest))
