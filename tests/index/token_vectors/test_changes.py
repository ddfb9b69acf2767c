"""Adding, deleting and compacting equals a fresh build, and whatever goes wrong leaves the index as it was."""

from __future__ import annotations

import errno
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embfit.errors import UserError
from embfit.index import TokenIndex, TokenIndexing
from embfit.index.token_vectors import TokenFormat, centroids, changes, segment
from embfit.vectors import Vectors
from tests.index.token_vectors.conftest import joined, several, texts

DOCUMENTS = several(300)
LATER = several(60, seed=5)
QUERIES = several(8, seed=1)
SETTINGS = [
    TokenIndexing(),
    TokenIndexing(format="ternary", candidates="centroids", shortlist=400, pool_factor=2),
]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def contents(index: TokenIndex) -> list[bytes]:
    """The files of the index's only segment."""
    (only,) = index.manifest.segments
    return [path.read_bytes() for path in sorted((index.folder / only.name).iterdir())]


@pytest.mark.parametrize("settings", SETTINGS)
def test_added_deleted_and_compacted_equals_a_fresh_build(settings: TokenIndexing, tmp_path: Path) -> None:
    gone = np.array([0, 17, 299, 310])
    left = np.setdiff1d(np.arange(360), gone)
    changed = TokenIndex.build(DOCUMENTS, tmp_path / "changed", settings)
    changed = changed.add(LATER.part(0, 20)).add(LATER.part(20, 60)).delete(gone[:2]).delete(gone[2:])
    whole = joined(DOCUMENTS, LATER)
    fresh = TokenIndex.build(whole.take(left), tmp_path / "fresh", settings, codec=changed.codec)

    assert (len(changed), changed.rows.tolist()) == (356, left.tolist())
    scores, rows = changed.search(QUERIES, 30)
    fresh_scores, fresh_rows = fresh.search(QUERIES, 30)
    np.testing.assert_array_equal(rows, left[fresh_rows])
    np.testing.assert_array_equal(scores, fresh_scores)

    compacted = changed.compact()
    assert contents(compacted) == contents(fresh)
    assert compacted.fingerprint == fresh.fingerprint == TokenIndex.load(tmp_path / "changed").fingerprint
    np.testing.assert_array_equal(compacted.search(QUERIES, 30)[1], fresh_rows)
    assert len(names(tmp_path / "changed")) == len(names(tmp_path / "fresh"))


def test_what_was_deleted_scores_nothing_and_has_no_vectors(tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path).delete(np.array([3]))
    assert index.score(QUERIES.part(0, 1), np.array([[3, 4]]))[0, 0] == -np.inf
    for ask in (index.vectors, index.delete, lambda rows: index.matches(QUERIES.part(0, 1), rows)):
        with pytest.raises(ValueError, match="the index has no document in row 3: it is deleted or negative"):
            ask(np.array([4, 3]))


def test_all_documents_may_go_and_others_come(tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path).delete(np.arange(300))
    assert (len(index), len(index.compact())) == (0, 0)
    again = TokenIndex.load(tmp_path).add(LATER)
    np.testing.assert_array_equal(again.search(LATER.part(5, 6), 1)[1], [[5]])


def test_an_index_says_when_it_has_outgrown_what_it_was_built_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = TokenIndex.build(texts([2] * 700), tmp_path, TokenIndexing(format="residual2"))
    grown = index.add(texts([2] * 2100))
    assert (index.outgrown, grown.outgrown) == (False, False)
    assert grown.add(texts([1])).outgrown
    assert "was built for 1400 vectors and has 5601; rebuild it" in caplog.text
    small = TokenIndex.build(texts([1] * 1999), tmp_path)
    assert (small.outgrown, small.add(texts([1])).outgrown) == (False, True)


def test_a_copy_takes_the_place_of_another_index(tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path / "one", SETTINGS[1]).delete(np.array([5]))
    TokenIndex.build(LATER, tmp_path / "other")
    index.save(tmp_path / "other")
    index.save(tmp_path / "one")
    assert TokenIndex.load(tmp_path / "other").fingerprint == index.fingerprint
    assert names(tmp_path / "other") == names(tmp_path / "one")


def broken(row: int) -> Vectors[np.ndarray]:
    documents = texts([2] * 40)
    documents.rows[2 * row] = np.nan
    return documents


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.add(LATER),
        lambda index: index.delete(np.array([1])),
        lambda index: index.compact(),
        lambda index: TokenIndex.build(LATER, index.folder),
    ],
    ids=["add", "delete", "compact", "build"],
)
@pytest.mark.parametrize("point", ["write", "manifest"])
def test_a_full_disk_leaves_the_index_as_it_was(
    change: Callable[[TokenIndex], object], point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path).add(LATER)
    before = index.search(QUERIES, 5)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        if point == "write":
            patched.setattr(segment, "write", full)
            patched.setattr(changes, "write", full)
        else:
            patched.setattr("embfit.index.token_vectors.manifest.write_settings", full)
        with pytest.raises(OSError, match="No space left on device"):
            change(index)
    reopened = TokenIndex.load(tmp_path)
    reopened.verify()
    assert reopened.fingerprint == index.fingerprint
    for wanted, got in zip(before, reopened.search(QUERIES, 5), strict=True):
        np.testing.assert_array_equal(wanted, got)
    changed = reopened.delete(np.array([0]))  # and what was left over is removed by the next change
    assert names(tmp_path) == changed.manifest.parts | {"index.json"}


def test_room_is_asked_for_before_a_file_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left on device"):
        TokenIndex.build(DOCUMENTS, tmp_path)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_vector_that_is_no_number_is_told_by_its_row(settings: TokenIndexing, tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path, settings)
    with pytest.raises(ValueError, match="row 39 of the documents is not finite"):
        index.add(broken(39))
    with pytest.raises(ValueError, match="row 12 of the documents is not finite"):
        TokenIndex.build(joined(broken(12), DOCUMENTS), tmp_path, settings)
    assert TokenIndex.load(tmp_path).fingerprint == index.fingerprint


@pytest.mark.parametrize("form", ["float16", "int8"])
def test_a_vector_beyond_half_precision_is_told_by_its_row(form: TokenFormat, tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path, TokenIndexing(format=form))
    long = Vectors(np.full((3, 16), 30_000, np.float32), np.array([0, 2, 3]))  # of length 120,000
    with pytest.raises(ValueError, match=r"row 0 of the documents has a vector of length 120,000, and half precision"):
        index.add(long)
    half = Vectors(np.full((3, 16), 15_000, np.float32), np.array([0, 2, 3]))
    np.testing.assert_allclose(index.add(half).vectors(np.array([301])).rows, 15_000, rtol=0.01)


def test_vectors_of_another_model_are_refused(tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path, source="a" * 64)
    for ask in (lambda: index.add(LATER, "b" * 64), lambda: TokenIndex.load(tmp_path, "b" * 64)):
        with pytest.raises(UserError, match=r"holds vectors made by aaaaaaaaaaaa, and these were made by bbbbbbbbbbbb"):
            ask()
    assert len(TokenIndex.load(tmp_path, "a" * 64)) == 300
    with pytest.raises(ValueError, match="vectors of 8 dimensions cannot be added to an index of 16"):
        index.add(LATER.cut(8), "a" * 64)


@pytest.mark.parametrize("file", ["vectors.npy", "starts.npy", "postings.npy", "centroids.npy", "levels.npy"])
def test_a_file_that_was_cut_short_or_changed_is_named(file: str, tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path, SETTINGS[1])
    (path,) = tmp_path.rglob(file)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=rf"{file} has {len(whole) - 1} bytes instead of {len(whole)}"):
        TokenIndex.load(tmp_path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=rf"{file} has changed since it was written"):
        TokenIndex.load(tmp_path).verify()
    path.unlink()
    with pytest.raises(UserError, match=rf"{file} cannot be read"):
        TokenIndex.load(tmp_path)
    path.write_bytes(whole)
    assert TokenIndex.load(tmp_path).fingerprint == index.fingerprint


def test_a_manifest_that_says_something_else_is_refused(tmp_path: Path) -> None:
    TokenIndex.build(DOCUMENTS, tmp_path)
    path = tmp_path / "index.json"
    whole = path.read_text()
    path.write_text(whole.replace('"version": 1', '"version": 3'))
    with pytest.raises(UserError, match="is not a token index of version 1 or 2; build it again"):
        TokenIndex.load(tmp_path)
    path.write_text(whole.replace('"documents"', '"papers"'))
    with pytest.raises(UserError, match="does not describe a token index"):
        TokenIndex.load(tmp_path)
    path.write_text(whole[:100])
    with pytest.raises(UserError, match=r"holds no index: index.json cannot be read"):
        TokenIndex.load(tmp_path)


def test_an_index_that_another_process_changed_is_opened_again_first(tmp_path: Path) -> None:
    stale = TokenIndex.build(DOCUMENTS, tmp_path)
    TokenIndex.load(tmp_path).add(LATER)
    with pytest.raises(UserError, match="was changed since it was opened; open it again"):
        stale.delete(np.array([0]))
    assert len(TokenIndex.load(tmp_path)) == 360
    assert len(stale.search(QUERIES, 5)[1]) == 8  # what was opened can still be searched


def test_two_changes_at_once_are_refused(tmp_path: Path) -> None:
    index = TokenIndex.build(DOCUMENTS, tmp_path)
    with changes.changing(tmp_path), pytest.raises(UserError, match="is being changed by another process"):
        index.delete(np.array([0]))


def test_memory_does_not_grow_with_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "CHUNK", 512)
    monkeypatch.setattr(centroids, "MOST_SAMPLED", 2048)
    settings = TokenIndexing(format="residual2", candidates="centroids", centroids=64)
    most = []
    for count in (2_000, 16_000):
        documents = texts([4] * count)
        tracemalloc.start()
        TokenIndex.build(documents, tmp_path, settings)
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    vectors = 4 * 14_000 * 16 * 4  # bytes that the larger one has more, as float32
    assert most[1] - most[0] < 0.25 * vectors
