"""Ranks that meet, or do not; here as threads and with a store of their own."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed import HashStore, PrefixStore, Store

from embfit.errors import UserError
from embfit.run.launch_environment import LaunchEnvironment
from embfit.training.ranks import rendezvous, worker
from embfit.training.ranks.launch import END

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def store() -> Store:
    return HashStore()


def see_nothing() -> None:
    """Stand for a look at processes that are all well."""


def test_all_join_when_all_are_there(store: Store) -> None:
    with ThreadPoolExecutor() as threads:
        others = [threads.submit(rendezvous.arrive, store, rank) for rank in (1, 2)]
        rendezvous.await_ranks(store, 3, see_nothing)
        assert [other.result() for other in others] == [True, True]


def test_a_rank_that_cannot_come_is_told_in_its_words_and_the_others_do_not_wait(store: Store) -> None:
    with ThreadPoolExecutor() as threads:
        other = threads.submit(rendezvous.arrive, store, 1)
        rendezvous.post_failure(store, "rank 2 of 3 failed: no such device")
        rendezvous.post_failure(store, "rank 1 of 3 failed: connection closed")  # only the first one counts
        with pytest.raises(UserError, match=r"^rank 2 of 3 failed: no such device$"):
            rendezvous.await_ranks(store, 3, see_nothing)
        rendezvous.cancel(store)
        assert not other.result()


def test_the_first_rank_looks_at_its_processes_while_it_waits(store: Store) -> None:
    looks = iter([None, None, UserError("rank 1 of 2 failed")])

    def look() -> None:
        if found := next(looks):
            raise found

    with pytest.raises(UserError, match="rank 1 of 2 failed"):
        rendezvous.await_ranks(store, 2, look)


def test_a_rank_that_does_not_come_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "ARRIVAL", timedelta(0))
    monkeypatch.setattr(rendezvous, "POLL", 0.0)
    store.set("rank 1", "")
    with pytest.raises(UserError, match="rank 2, 3 of 4 has not come within 0 minutes; read what it said"):
        rendezvous.await_ranks(store, 4, see_nothing)


def test_ctrl_c_ends_the_wait(store: Store) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        rendezvous.await_ranks(store, 2, see_nothing)


def test_a_launchers_process_that_does_not_see_the_run_folder_says_so_and_serves_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(worker, "meeting_point", lambda world: store)
    store.set("job 0", str(tmp_path / "job.pt"))
    store.set("job 1", END)
    worker.serve_jobs(LaunchEnvironment(1, 2, 1, 2, "127.0.0.1", 1, has_store=True))
    with pytest.raises(UserError, match=rf"rank 1 of 2 failed: {tmp_path}/job.pt is not there; put run.dir on a disk"):
        rendezvous.await_ranks(PrefixStore("group 0", store), 2, see_nothing)
