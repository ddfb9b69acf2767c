"""Throughput and latency of `task=serve` beside other servers: same model folder, same texts, same clients, in turns.

In each turn one server after the other is started on the first core, asked from the second one, and stopped, so that
none computes while another is measured. The bundle is that of `serving.py`, made in `--precision`. A peer is named by
the address of its embeddings, the model's name there, and the command that starts it, in which `{model}` becomes the
folder of the bundle's model. Its vectors are held to embfit's first.

    pip install "infinity-emb[torch,server]"          # in an environment of its own, ENV: it pins older releases
    python scripts/benchmarks/serving_peers.py --precision fp32 --turns 5 --seconds 20 \\
      --peer infinity http://127.0.0.1:7997/embeddings minilm "ENV/bin/infinity_emb v2 --device cpu --dtype float32 \\
        --port 7997 --host 127.0.0.1 --served-model-name minilm --model-id {model}" \\
      --peer litserve http://127.0.0.1:7998/v1/embeddings minilm \\
        "ENV2/bin/python scripts/benchmarks/litserve_embeddings.py {model} --port 7998"

`--server server.backend=openvino` and other settings are those of embfit's server alone.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from serving import FIRST_CORE, LAST_CORE, NAME, WARM, Client, load, make_bundle, questions, serving

OURS = "embfit"
START_SECONDS = 300  # that a server has to answer
STOP_SECONDS = 30  # and to end
TOLERANCE = {"fp32": 1e-4, "bf16": 1e-3, "int8": 3e-2}  # of 1 - cosine between a peer's vectors and embfit's


@dataclass(frozen=True)
class Measured:
    """One turn of one server: texts a second, milliseconds of a request, and of the processor for each text."""

    rate: float
    p50: float
    p99: float
    processor: float

    def __str__(self) -> str:
        times = f"p50 {self.p50:.0f} ms, p99 {self.p99:.0f} ms"
        return f"{self.rate:.0f} texts a second, {times}; {self.processor:.1f} ms of the processor a text"


@dataclass(frozen=True)
class Running:
    """A server that answers: the address of its embeddings, the model's name there, and its first process."""

    url: str
    model: str
    process: int

    def measure(self, clients: int, seconds: float) -> Measured:
        """Let clients ask for one text at a time, without a pause; a fifth of the time before warms up."""
        load(self.url, self.model, clients, seconds / 5)
        before = self._processor_seconds()
        rate, taken = load(self.url, self.model, clients, seconds)
        spent = self._processor_seconds() - before
        cuts = statistics.quantiles(taken, n=100)
        return Measured(rate, cuts[49], cuts[98], 1000 * spent / len(taken))

    def _processor_seconds(self) -> float:
        """Return what its processes have used so far."""
        first = psutil.Process(self.process)
        return sum(sum(one.cpu_times()[:2]) for one in (first, *first.children(recursive=True)))


Server = Callable[[], AbstractContextManager[Running]]
"""Starts a server, and stops it."""


def main() -> None:
    """Make the bundle where there is none, and measure the servers in turns."""
    arguments = _arguments()
    bundles = arguments.folder / f"bundles-peers-{arguments.precision}"
    if not (bundles / NAME / "champion").exists():
        make_bundle(bundles, arguments.documents, "exact", arguments.folder / "store", arguments.precision)
    model = (bundles / NAME / "champion" / "model").resolve()
    os.sched_setaffinity(0, {LAST_CORE})
    servers: dict[str, Server] = {OURS: partial(_ours, bundles, arguments.server)}
    for name, url, served, command in arguments.peer:
        words = shlex.split(command.replace("{model}", shlex.quote(str(model))))
        servers[name] = partial(_peer, url, served, words, bundles / f"{name}.log")
    _check_vectors(servers, TOLERANCE[arguments.precision])
    found: dict[str, list[Measured]] = {name: [] for name in servers}
    for turn in range(arguments.turns):
        for name in list(servers)[:: 1 if turn % 2 == 0 else -1]:  # so that none always comes after the same one
            with servers[name]() as running:
                found[name].append(running.measure(arguments.clients, arguments.seconds))
            print(f"turn {turn + 1}, {name}: {found[name][-1]}", flush=True)
    print(table(found))


def table(found: Mapping[str, list[Measured]]) -> str:
    """Return the medians over turns, and embfit's throughput by each server's, turn by turn, as Markdown."""
    lines = [
        "| server | texts a second | p50 ms | p99 ms | processor ms a text | embfit is |",
        "|---|---|---|---|---|---|",
    ]
    for name, turns in found.items():
        rate, p50, p99, processor = np.median([astuple(one) for one in turns], axis=0)
        times = [ours.rate / theirs.rate for ours, theirs in zip(found[OURS], turns, strict=True)]
        ratio = f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) times as fast"
        lines.append(
            f"| {name} | {rate:.0f} | {p50:.0f} | {p99:.0f} | {processor:.1f} | {'' if name == OURS else ratio} |"
        )
    return "\n".join(lines)


@contextmanager
def _ours(bundles: Path, settings: list[str]) -> Iterator[Running]:
    with serving(bundles, *settings) as (url, process):
        yield Running(f"{url}/v1/embeddings", NAME, process)


@contextmanager
def _peer(url: str, served: str, command: list[str], log: Path) -> Iterator[Running]:
    """Start another server on the first core, and wait until it answers."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    environment.pop("PYTHONPATH", None)  # it has an environment of its own
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["taskset", "-c", str(FIRST_CORE), *command], env=environment, stdout=file, stderr=file
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not _answers(url, served):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{command[0]} does not answer at {url}; see {log}")
            time.sleep(0.5)
        yield Running(url, served, process.pid)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, and those that it has started."""
    if process.poll() is not None:
        return
    first = psutil.Process(process.pid)
    started = [first, *first.children(recursive=True)]
    for one in started:
        with suppress(psutil.NoSuchProcess):
            one.terminate()
    for one in psutil.wait_procs(started, timeout=STOP_SECONDS)[1]:
        one.kill()
    process.wait()


def _answers(url: str, served: str) -> bool:
    try:
        return len(_vectors(url, served, questions(1))) == 1
    except (OSError, ValueError, KeyError):
        return False


def _vectors(url: str, served: str, texts: list[str]) -> np.ndarray:
    """Return the vectors that a server gives texts ([N, D] float32), each in a request of its own.

    Raises:
        ValueError: it does not answer with vectors.
    """
    client, found = Client(url), []
    for text in texts:
        status, _, answer = client.post({"input": text, "model": served, "encoding_format": "base64"})
        if status != 200:
            raise ValueError(answer.decode(errors="replace"))
        vector = json.loads(answer)["data"][0]["embedding"]
        found.append(np.frombuffer(base64.b64decode(vector), np.float32) if isinstance(vector, str) else vector)
    return np.array(found, np.float32)


def _check_vectors(servers: Mapping[str, Server], tolerance: float) -> None:
    """Hold each server's vectors to embfit's."""
    texts, expected = questions(WARM, seed=4), None
    for name, start in servers.items():
        with start() as running:
            vectors = _vectors(running.url, running.model, texts)
        if expected is None:
            expected = vectors
        cosines = np.einsum("nd,nd->n", vectors, expected)
        distance = float((1 - cosines / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1))).max())
        print(f"{name}: its vectors are embfit's to {max(distance, 0):.1e} of 1 - cosine", flush=True)
        if distance > tolerance:
            raise SystemExit(f"{name} computes another model, or in another precision (limit {tolerance:g})")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("outputs/benchmarks/serving"))
    parser.add_argument("--documents", type=int, default=1000, help="of the bundle; they are not searched")
    parser.add_argument("--precision", choices=[*TOLERANCE], default="fp32", help="that embfit computes in")
    parser.add_argument("--server", nargs="*", default=[], metavar="KEY=VALUE", help="settings of embfit's server")
    parser.add_argument("--peer", nargs=4, action="append", default=[], metavar=("NAME", "URL", "MODEL", "COMMAND"))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a turn, after a fifth of it that warms up")
    parser.add_argument("--turns", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
