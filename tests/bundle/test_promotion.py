"""Which version is used: gates, two promotions at once, back again, and what may be removed."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace

import pytest

from embfit.bundle import BundleVersions, Gates, open_bundle
from embfit.bundle.manifest import digest_files, read_manifest, write_manifest
from embfit.bundle.promotion import Pruning, promote, prune, rollback
from embfit.errors import UserError
from tests.bundle.conftest import copy_version

NO_SLICE = "ndcg@10 of none was not measured, and 0.4 is asked for; name one that was (rare), or remove the limit"


def measured(versions: BundleVersions, number: int, values: Mapping[str, float], **changes: object) -> None:
    """Publish a copy of version 1 whose nDCG@10 is given by query; `answers` and `slices` may be given, too."""
    copy_version(versions, number)
    rewrite(versions, number, values, **changes)


def rewrite(versions: BundleVersions, number: int, values: Mapping[str, float], **changes: object) -> None:
    folder = versions.path(number)
    parts = {name: changes.pop(name, {}) for name in ("slices", "answers")}
    (folder / "quality.json").unlink()
    (folder / "quality.json").write_text(json.dumps({"per_query": {"ndcg@10": values}, **parts}))
    manifest = read_manifest(folder)
    (folder / "manifest.json").unlink()
    assert manifest.quality is not None
    quality = replace(manifest.quality, metrics={"ndcg@10": sum(values.values()) / len(values)})
    index = replace(manifest.index, recall=changes.pop("recall", 1.0))
    given = {"quality": quality, "index": index} | changes
    write_manifest(folder, replace(manifest, files=digest_files(folder), **given))  # type: ignore[arg-type]


def of(*values: float) -> dict[str, float]:
    return {f"q{number}": value for number, value in enumerate(values)}


def test_a_promotion_and_back(versions: BundleVersions) -> None:
    copy_version(versions, 2)
    versions.point({"challenger": 2})
    done = promote(versions, "challenger", Gates())
    assert (done.promoted, done.version, done.champion, done.forced) == (True, 2, 2, False)
    assert versions.pointers() == {"champion": 2, "previous": 1}
    assert promote(versions, 2, Gates()).results == ()  # it is champion already
    assert rollback(versions) == (1, 2)
    assert versions.pointers() == {"champion": 1, "previous": 2}
    assert rollback(versions) == (2, 1)


def test_slices_ask_for_judged_queries_and_say_what_there_is(versions: BundleVersions) -> None:
    gates = Gates(loss=None, recall=None, churn=None, slices={"unseen": 0.4})
    measured(versions, 2, of(0.5, 0.7), slices={"seen": {"ndcg@10": 0.9}})
    second = versions.path(2)
    [found] = gates.check(second, versions.path(1))
    wanted = "ndcg@10 of unseen was not measured, and 0.4 is asked for"
    assert (found.passed, found.said) == (False, f"{wanted}; name one that was (seen), or remove the limit")
    manifest = read_manifest(second)
    (second / "manifest.json").unlink()
    (second / "quality.json").unlink()
    (second / "quality.json").write_text(json.dumps({"per_query": {}, "slices": {}, "answers": {}}))
    unjudged = replace(manifest, quality=None)
    write_manifest(second, unjudged)
    [found] = gates.check(second, versions.path(1))
    assert not found.passed
    assert found.said.endswith("; judge some queries, or remove the limit")
    (second / "manifest.json").unlink()
    write_manifest(second, replace(unjudged, documents=replace(manifest.documents, sha256="0" * 64)))
    [found] = gates.check(second, versions.path(1))
    assert (found.passed, found.gate) == (True, "slices.unseen")
    assert found.said == "no query is judged, and the model is that of docs@1, on other documents"


def test_a_version_that_loses_too_much_stays_out(versions: BundleVersions) -> None:
    rewrite(versions, 1, of(*[0.8, 0.6, 0.7, 0.9] * 5))
    measured(versions, 2, of(*[0.5, 0.4, 0.3, 0.7] * 5))
    done = promote(versions, 2, Gates())
    assert not done.promoted
    [loss] = [result for result in done.results if not result.passed]
    assert loss.gate == "loss"
    assert loss.said.startswith("ndcg@10 -0.2750 against docs@1, 95 % interval -0.3")
    assert versions.pointers() == {"champion": 1}
    forced = promote(versions, 2, Gates(), force=True)
    assert (forced.promoted, forced.forced) == (True, True)
    assert promote(versions, 1, Gates()).promoted  # it gains


@pytest.mark.parametrize(
    ("gates", "gate", "said"),
    [
        (Gates(floor=0.6), "floor", "ndcg@10 0.5000, limit 0.6"),
        (Gates(slices={"rare": 0.4}), "slices.rare", "ndcg@10 of rare 0.3000, limit 0.4"),
        (Gates(slices={"none": 0.4}), "slices.none", NO_SLICE),
        (Gates(recall=0.9), "recall", "recall@10 of the exact search 0.8500, limit 0.9"),
        (Gates(recall=None, latency_ms=5), "latency_ms", "p95 7.5 ms, limit 5"),
    ],
)
def test_gates_of_a_version_alone(versions: BundleVersions, gates: Gates, gate: str, said: str) -> None:
    measured(
        versions,
        2,
        of(0.4, 0.6),
        slices={"rare": {"ndcg@10": 0.3}},
        recall=0.85,
        latency_ms={"p50": 2.0, "p95": 7.5},
    )
    done = promote(versions, 2, replace(gates, loss=None, recall=gates.recall if gate == "recall" else None))
    assert [(result.gate, result.passed, result.said) for result in done.results] == [(gate, False, said)]
    assert versions.pointers() == {"champion": 1}


def test_what_was_not_measured_on_the_same_queries_is_not_compared(versions: BundleVersions) -> None:
    measured(versions, 2, of(0.1), quality=None)
    [loss] = [result for result in promote(versions, 2, Gates()).results if result.gate == "loss"]
    assert loss.passed
    assert loss.said == "not compared with docs@1: the same queries were not measured"


def test_changed_answers_are_told_and_stop_nothing(versions: BundleVersions) -> None:
    rewrite(versions, 1, of(0.5), answers={"a": ["d1", "d2"], "b": ["d1", "d2"]})
    measured(versions, 2, of(0.5), answers={"a": ["d1", "d3"], "b": ["d4", "d3"]})
    [churn] = [result for result in promote(versions, 2, Gates()).results if result.gate == "churn"]
    assert churn.passed
    assert churn.said == "75% of the first ten documents changed (2 queries); more than 50%"


def test_a_damaged_version_is_never_champion(versions: BundleVersions) -> None:
    copy_version(versions, 2)
    path = versions.path(2) / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is not the file that was published"):
        promote(versions, 2, Gates(), force=True)
    assert versions.pointers() == {"champion": 1}


def test_two_promotions_at_once(versions: BundleVersions) -> None:
    for number in (2, 3):
        copy_version(versions, number)
    threads = [threading.Thread(target=promote, args=(versions, number, Gates())) for number in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = versions.pointers()
    assert {found["champion"], found["previous"]} == {2, 3}  # one after the other, whichever was first


def test_no_version_to_go_back_to(versions: BundleVersions) -> None:
    told = r"docs has no previous version to go back to; it has 1: embfit bundle promote docs@NUMBER"
    with pytest.raises(UserError, match=told):
        rollback(versions)
    versions.point({"previous": 1})  # as a promotion that was killed leaves it
    with pytest.raises(UserError, match=told):
        rollback(versions)


def test_what_is_used_is_not_removed(versions: BundleVersions) -> None:
    for number in range(2, 7):
        copy_version(versions, number)
    promote(versions, 2, Gates())
    with open_bundle(versions.folder, 4):
        assert prune(versions, keep=1, dry_run=True) == Pruning([3, 4, 5], {})
        assert prune(versions, keep=1) == Pruning([3, 5], {4: "a process has it open"})
    assert versions.numbers() == [1, 2, 4, 6]  # previous, champion, in use, newest
    assert prune(versions, keep=0) == Pruning([4, 6], {})
    assert versions.numbers() == [1, 2]


def test_fewer_versions_than_are_kept_all_stay(versions: BundleVersions) -> None:
    for number in (2, 3):
        copy_version(versions, number)
    versions.point({"champion": 3})
    prune(versions, keep=5)
    assert versions.numbers() == [1, 2, 3]
    prune(versions, keep=2)
    assert versions.numbers() == [2, 3]
