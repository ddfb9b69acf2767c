"""Swaps: the next champion answers without a restart, no answer mixes versions, and what cannot be used is refused."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from embfit.bundle import Bundle, BundleVersions, open_bundle
from embfit.bundle.promotion import Pruning, prune
from embfit.model import Encoder
from embfit.server.live_version import LiveBundle
from tests.bundle.conftest import CHANGED, Make, copy_version
from tests.conftest import TEXTS
from tests.server.conftest import Served, serving, until
from tests.server.test_server import Gate, measured, together

QUERIES = [" ".join(text.split()[:4]) for text in TEXTS]


def other(encoder: Encoder) -> Encoder:
    """Another model of the same shape, whose vectors are other ones."""
    for number, weights in enumerate(encoder.parameters()):
        generator = np.random.default_rng(number)
        weights.data += weights.data.new_tensor(generator.normal(0, 0.5, weights.shape))
    return encoder


@pytest.fixture
def two(versions: BundleVersions, make: Make, tiny_encoder: Encoder) -> BundleVersions:
    """A bundle with a second version: another model, other documents."""
    make(encoder=other(tiny_encoder), texts=CHANGED)
    return versions


@pytest.fixture
def running(two: BundleVersions) -> Iterator[Served]:
    with serving(two) as served:
        yield served


def expected(versions: BundleVersions) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """Return what each version answers to each query."""
    found = {}
    for number in versions.numbers():
        with open_bundle(versions.folder, number) as bundle:
            hits = bundle.searcher.hits(bundle.searcher.search(QUERIES, 3))
            found[bundle.label] = {
                query: [(hit.id, pytest.approx(hit.score, abs=1e-4)) for hit in mine]
                for query, mine in zip(QUERIES, hits, strict=True)
            }
    return found


def test_no_answer_mixes_versions(running: Served, two: BundleVersions) -> None:
    known = expected(two)
    assert sum(known["docs@1"][query] != known["docs@2"][query] for query in QUERIES) >= 10  # they can be told apart
    seen: dict[str, int] = {"docs@1": 0, "docs@2": 0}
    wrong: list[object] = []
    end = threading.Event()

    def ask(first: int) -> None:
        place = first
        while not end.is_set():
            query = QUERIES[place % len(QUERIES)]
            answer = running.post("/v1/search", query=query, k=3)
            label = answer.headers["x-embfit-bundle"]
            body = answer.json()
            found = [(hit["id"], hit["score"]) for hit in body["data"][0]["documents"]] if answer.is_success else None
            if found != known[label][query] or body["model"] != label:
                wrong.append((label, query, answer.status_code, found))
            seen[label] += 1
            place += 1

    threads = [together(lambda first=first: ask(first)) for first in range(4)]
    try:
        for turn in range(6):
            number = 2 - turn % 2
            two.point({"champion": number})
            until(lambda number=number: running.service.live.bundle.manifest.version == number)
            before = seen[f"docs@{number}"]
            until(lambda number=number, before=before: seen[f"docs@{number}"] > before + 8)
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert min(seen.values()) > 24


def test_a_request_ends_on_the_version_that_it_began_with(
    running: Served, two: BundleVersions, monkeypatch: pytest.MonkeyPatch
) -> None:
    old: LiveBundle = running.service.live
    gate = Gate(running, monkeypatch)
    answers = []
    thread = together(lambda: answers.append(running.post("/v1/search", query=QUERIES[0], k=3)))
    until(lambda: gate.texts == 1)
    two.point({"champion": 2})
    until(lambda: running.service.live is not old)
    assert running.client.get("/health").headers["x-embfit-bundle"] == "docs@2"
    two.point({"previous": None})
    assert prune(two, keep=1) == Pruning([], {1: "a process has it open"})  # the request has it open
    gate.open.set()
    thread.join()
    assert answers[0].headers["x-embfit-bundle"] == "docs@1"
    assert [hit["id"] for hit in answers[0].json()["data"][0]["documents"]] == [
        name for name, _ in expected(two)["docs@1"][QUERIES[0]]
    ]
    until(lambda: old.users == 0)
    assert prune(two, keep=1) == Pruning([1], {})


@pytest.mark.parametrize("damage", ["flipped", "cut", "manifest", "nan"])
def test_a_version_that_cannot_be_used_is_refused(running: Served, two: BundleVersions, damage: str) -> None:
    folder = two.path(2)
    file = folder / "manifest.json" if damage == "manifest" else folder / "model" / "model.safetensors"
    file.chmod(0o644)
    content = file.read_bytes()
    if damage == "flipped":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "cut":
        file.write_bytes(content[:-100])
    elif damage == "manifest":
        file.write_bytes(content[: len(content) // 2])
    else:
        probes = folder / "probes.npy"
        probes.chmod(0o644)
        published = np.load(probes)
        np.save(probes, np.full_like(published, np.nan))
    two.point({"champion": 2})
    until(lambda: measured(running, 'embfit_bundle_swaps_total{result="refused"}') == 1)
    assert running.post("/v1/search", query=QUERIES[0]).headers["x-embfit-bundle"] == "docs@1"
    assert running.client.get("/ready").status_code == 200
    assert copy_version(two, 3) == 3  # of what the pointer names: another number, as damaged
    two.point({"champion": 1})
    two.point({"champion": 3})
    until(lambda: measured(running, 'embfit_bundle_swaps_total{result="refused"}') == 2)
    assert running.service.live.label == "docs@1"


def test_a_pointer_that_is_gone_changes_nothing(running: Served, two: BundleVersions) -> None:
    two.point({"champion": None})
    before = measured(running, 'embfit_requests_total{code="200",route="/metrics"}')
    until(lambda: measured(running, 'embfit_requests_total{code="200",route="/metrics"}') > before + 5)
    assert running.service.live.label == "docs@1"


def test_a_number_is_not_followed(two: BundleVersions) -> None:
    with serving(two, serve=2) as pinned:
        two.point({"champion": 2})
        two.point({"champion": 1})
        assert pinned.post("/v1/search", query="x").headers["x-embfit-bundle"] == "docs@2"


def test_the_shadow_is_asked_beside(two: BundleVersions) -> None:
    two.point({"challenger": 2})
    known = expected(two)
    with serving(two, shadow="challenger", shadow_share=1.0) as served:
        until(lambda: served.service.shadow is not None)
        assert served.client.get("/info").json()["shadow"] == "docs@2"
        for query in QUERIES:
            answer = served.post("/v1/search", query=query, k=3)
            assert answer.json()["model"] == "docs@1"
            assert [hit["id"] for hit in answer.json()["data"][0]["documents"]] == [
                name for name, _ in known["docs@1"][query]
            ]
        until(lambda: measured(served, "embfit_shadow_overlap_ratio_count") == len(QUERIES))
        shares = [
            len({name for name, _ in known["docs@1"][query]} & {name for name, _ in known["docs@2"][query]}) / 3
            for query in QUERIES
        ]
        assert measured(served, "embfit_shadow_overlap_ratio_sum") == pytest.approx(sum(shares))
        two.point({"champion": 2})
        two.point({"challenger": None})
        until(lambda: served.service.shadow is None and served.service.live.label == "docs@2")
        assert served.post("/v1/search", query=QUERIES[0]).headers["x-embfit-bundle"] == "docs@2"
        assert measured(served, "embfit_shadow_overlap_ratio_count") == len(QUERIES)


def test_a_challenger_answers_until_it_answers_as_champion(
    two: BundleVersions, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.point({"challenger": 2})
    with serving(two, beside="challenger") as served:
        until(lambda: served.service.beside is not None)
        may_open, main = threading.Event(), served.service._main
        plain = main._open

        def open_late(which: object) -> Bundle:
            assert may_open.wait(20)
            return plain(which)

        monkeypatch.setattr(main, "_open", open_late)
        two.point({"champion": 2})
        two.point({"challenger": None})
        end = time.monotonic() + 10 * served.service.settings.follow_seconds
        while time.monotonic() < end:
            answer = served.client.post(
                "/v1/search", json={"query": QUERIES[0]}, headers={"x-embfit-if-version": "docs@2"}
            )
            assert (answer.status_code, answer.headers["x-embfit-bundle"]) == (200, "docs@2")
        assert served.service.live.label == "docs@1"
        may_open.set()
        until(lambda: served.service.beside is None and served.service.live.label == "docs@2")


def test_a_version_that_was_replaced_is_let_go(running: Served, two: BundleVersions) -> None:
    old = []
    for turn in range(4):
        running.post("/v1/search", query=QUERIES[0])
        encoder = running.service.live.bundle.encoder
        encoder.itself = [encoder]  # a reference cycle, which only a garbage collection ends
        old.append(weakref.ref(encoder))
        del encoder
        number = 2 - turn % 2
        two.point({"champion": number})
        until(lambda number=number: running.service.live.bundle.manifest.version == number)
    running.post("/v1/search", query=QUERIES[0])
    until(lambda: [encoder() for encoder in old] == [None] * 4)


def test_full_collections_skip_the_objects_that_a_server_keeps(two: BundleVersions) -> None:
    with serving(two) as running:
        running.post("/v1/search", query=QUERIES[0])
        frozen = gc.get_freeze_count()
        assert frozen > 100_000  # the libraries' own objects
        assert len(gc.get_objects()) < frozen / 10
    assert gc.get_freeze_count() == 0
