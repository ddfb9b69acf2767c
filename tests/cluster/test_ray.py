"""Ray itself: what its workers make is what one machine makes, whatever is lost on the way.

The slow tests have two nodes on this machine, which Ray takes for two machines, each with one CPU and 150 MB of object
store. None of this needs more than two CPUs and a gigabyte.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embfit.cluster import RayCluster, current_cluster
from embfit.cluster.connection import computing_on
from embfit.cluster.ray_worker import import_ray
from embfit.cluster.ray_workers import RayWorkers
from embfit.errors import ConfigError, UserError
from embfit.miner import DenseMiner
from embfit.model import CrossEncoder, Encoder, embed
from embfit.model.scoring import score_pairs
from embfit.records import Collection
from embfit.store import Store
from tests.cluster.disturbed import Disturbed, Ending, Refusing, process_of

if importlib.util.find_spec("ray") is None:  # which must not be imported before what silences it is set
    pytest.skip("needs the package ray", allow_module_level=True)
ROOT = Path(__file__).parents[2]
PAIRS = np.stack(np.divmod(np.arange(12 * 12), 12), axis=1)
NODE = {"num_cpus": 1, "object_store_memory": 150_000_000}


@pytest.fixture(autouse=True)
def _no_other_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers take two CPUs")
@pytest.mark.usefixtures("small_parts")
def test_workers_make_what_this_machine_makes(
    small_collection: Collection,
    make_encoder: Callable[..., Encoder],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    encoder, rescaled = make_encoder(), make_encoder(normalize=False)
    before = signal.getsignal(signal.SIGTERM)
    with RayCluster(workers=2, object_store_gb=0.2).joined():
        assert signal.getsignal(signal.SIGTERM) is before
        found = embed(encoder, small_collection, "document", Store(tmp_path / "spread")).vectors.rows
        other = embed(rescaled, small_collection, "document", Store(tmp_path / "spread")).vectors.rows
        with pytest.raises(UserError, match="set model"):
            list(_joined().spread(Refusing(), lambda number: number, [0]))
        reading = _joined().spread(Ending(-1), lambda number: number, range(9))
        next(reading)
        with pytest.raises(RuntimeError, match="at another work"):  # its parts have the same numbers
            list(_joined().spread(Ending(-1), lambda number: number, [0]))
        reading.close()
        assert [number for number, _ in _joined().spread(Ending(-1), lambda number: number, [7])] == [7]
    assert current_cluster() is None
    said = capfd.readouterr()
    assert said.out + said.err == ""
    for made, rows in ((encoder, found), (rescaled, other)):
        np.testing.assert_array_equal(
            rows, embed(made, small_collection, "document", Store(enabled=False)).vectors.rows
        )


def test_a_ray_client_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"address=ray://head:10001 is of a Ray client, .* give HOST:6379 or auto"):
        RayCluster(address="ray://head:10001")


def test_a_termination_while_ray_starts_is_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_ray(), "init", lambda **_: sys.exit(signal.SIGTERM))  # as Ray's own handler does
    with pytest.raises(KeyboardInterrupt), RayCluster().joined():
        pass


@contextmanager
def nodes() -> Iterator[tuple[Any, Any]]:
    """Start a cluster of two nodes; give it, and the node that is not its head."""
    import_ray()
    from ray.cluster_utils import Cluster as Nodes

    cluster = Nodes(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        yield cluster, cluster.add_node(**NODE, resources={"fast": 1})
    finally:
        cluster.shutdown()


@pytest.fixture(autouse=True)
def as_many_threads_as_a_worker() -> Iterator[None]:
    """Compute with one thread here, as a worker with one CPU does: another number rounds differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def two_workers(cluster: Any) -> Iterator[RayWorkers]:
    """Join a cluster with a worker on each of two nodes."""
    with RayCluster(address=cluster.address, workers=2).joined():
        workers = _joined()
        deadline = time.monotonic() + 60
        while len(workers) < 2 and time.monotonic() < deadline:
            workers.wait_for_one()
            time.sleep(0.1)
        assert len(workers) == 2
        yield workers


def _joined() -> RayWorkers:
    joined = current_cluster()
    assert isinstance(joined, RayWorkers)
    return joined


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("lost", ["nothing", "a node", "a worker"])
def test_vectors_scores_and_negatives_are_the_same_whatever_is_lost(
    lost: str,
    small_collection: Collection,
    make_encoder: Callable[..., Encoder],
    tiny_ranker: CrossEncoder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    encoder, miner = make_encoder(), DenseMiner(negatives=3, relative_margin=None)

    def make(store: Store) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        vectors = embed(encoder, small_collection, "document", store).vectors.rows
        scores = score_pairs(tiny_ranker, small_collection, PAIRS, store)
        return vectors, scores, miner.mine(small_collection, encoder, store).rows.to_dict()

    alone = make(Store(tmp_path / "alone"))
    with nodes() as (cluster, second), two_workers(cluster) as workers:
        happens = {
            "nothing": lambda: None,
            "a node": lambda: cluster.remove_node(second, allow_graceful=False),
            "a worker": lambda: os.kill(process_of(workers.places[0]), signal.SIGKILL),
        }[lost]
        disturbed = Disturbed(workers, 1, happens)
        with computing_on(disturbed):
            found = make(Store(tmp_path / "spread"))
    np.testing.assert_array_equal(found[0], alone[0])
    np.testing.assert_array_equal(found[1], alone[1])
    assert found[2] == alone[2]
    assert disturbed.done > 10
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    reasons = {"a node": "(its machine is gone|it cannot be reached)", "a worker": "its process has died"}
    for message in warned:  # one at most
        assert re.search(rf"is lost \({reasons[lost]}\); its parts are done again$", message)
    assert "raylet" not in capfd.readouterr().out  # what Ray itself would print in the midst of a progress bar
    assert len(disturbed.sent) >= disturbed.done + (lost != "nothing")


@pytest.mark.slow
def test_a_killed_driver_sends_only_missing_parts_when_it_is_started_again(
    small_collection: Collection, make_encoder: Callable[..., Encoder], tmp_path: Path
) -> None:
    def drive(cluster: Any, after: int) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "tests.cluster.disturbed",
            cluster.address,
            str(tmp_path / "store"),
            str(after),
        ]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200)

    with nodes() as (cluster, _):
        killed = drive(cluster, 2)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        again = drive(cluster, 99)
    assert again.returncode == 0, again.stderr
    assert len(again.stdout.split()) == 3, again.stdout  # two of five parts were there
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embfit.model.encoder.default_token_budget", lambda device: 40)
        alone = embed(make_encoder(), small_collection, "document", Store(tmp_path / "alone")).vectors.rows
        found = embed(make_encoder(), small_collection, "document", Store(tmp_path / "store")).vectors.rows
    np.testing.assert_array_equal(found, alone)


@pytest.mark.slow
def test_what_ray_would_wait_for_without_a_word_is_refused_with_the_numbers() -> None:
    with nodes() as (cluster, _):
        for settings, message in (
            (
                {"workers": 3},
                r"workers=3 with 1 CPUs each: the cluster has room for 2; its machines \(2\) have 1, 1 CPUs",
            ),
            ({"cpus": 2}, r"a worker with 2 CPUs each: the cluster has room for 0"),
            (
                {"workers": 2, "resources": {"fast": 1}},
                r"1 fast each: the cluster has room for 1; .* lower cluster\.wor",
            ),
            ({"gpus": 1}, r"1 GPUs each: the cluster has room for 0; .* 0, 0 GPUs"),
        ):
            with pytest.raises(UserError, match=message), RayCluster(address=cluster.address, **settings).joined():
                pass
        with two_workers(cluster) as workers:  # they hold every CPU, and nothing hangs
            assert len(dict(workers.spread(Ending(-1), lambda number: number, range(20)))) == 20
            with pytest.raises(
                UserError,
                match=r"part 7 ended 3 workers, the last on .* \(its process has died\); .*: lower cluster\.workers",
            ):
                list(workers.spread(Ending(7), lambda number: number, range(20)))


@pytest.mark.slow
def test_workers_that_others_leave_no_room_for_are_told() -> None:
    with nodes() as (cluster, _), two_workers(cluster):
        command = [sys.executable, "-c", SECOND_DRIVER, cluster.address]
        found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200)
    assert "no worker has started for 3 s; free in the cluster are 0 CPUs" in found.stderr, found.stderr


@pytest.mark.slow
def test_a_termination_is_noticed_while_workers_are_waited_for() -> None:
    process = subprocess.Popen([sys.executable, "-c", WAITING_DRIVER], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"
        time.sleep(1)
        process.terminate()
        terminated = time.monotonic()
        noticed = float(process.stdout.readline())
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
    assert 0 <= noticed - terminated < 5  # the part takes a minute


WAITING_DRIVER = """
import sys, time
from embfit.cluster import RayCluster, current_cluster
from embfit.run.process import termination_interrupts
from tests.cluster.disturbed import Sleeping
try:
    with termination_interrupts(), RayCluster(workers=1, object_store_gb=0.1).joined():
        try:
            list(current_cluster().spread(Sleeping(60), lambda number: print("sent", flush=True), [0]))
        finally:
            print(time.monotonic(), flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


SECOND_DRIVER = """
import sys
from embfit.cluster import RayCluster, ray_workers
ray_workers.START_SECONDS = 3.0
with RayCluster(address=sys.argv[1]).joined():
    pass
"""
