"""Kill -9 at every step of what changes a bundle, and a full disk: the champion is whole and answers, always."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import faiss
import pytest
import torch

from embfit import store as store_module
from embfit.app import main
from embfit.bundle import BundleVersions, Gates, open_bundle, publishing
from embfit.bundle.pointers import Pointer
from embfit.bundle.promotion import promote, prune, rollback
from tests.bundle.conftest import Make, copy_version
from tests.conftest import TEXTS

STEPS = ((Path, "rename"), (Path, "replace"), (Path, "symlink_to"), (Path, "unlink"), (Path, "mkdir"))
SYNCED = (*STEPS, (store_module.os, "fsync"))


def killed_at(step: int, steps: tuple[tuple[object, str], ...], work: Callable[[], object]) -> bool:
    """Run something in a process that is killed at a change of the file system; say whether it came so far.

    Args:
        step: the number of the change, from 1.
        steps: the functions whose calls are counted as changes.
        work: what is run.
    """
    child = os.fork()
    if not child:
        try:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads of the parent are not there
            torch.set_num_threads(1)
            faiss.omp_set_num_threads(1)
            _die_at(step, steps)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _die_at(step: int, steps: tuple[tuple[object, str], ...]) -> None:
    left = step
    for owner, name in steps:
        real = getattr(owner, name)

        def counted(*arguments: object, real: Callable[..., object] = real, **named: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        setattr(owner, name, counted)


def answers(versions: BundleVersions) -> str:
    """Return the label of the champion, having seen that it answers."""
    with open_bundle(versions.folder) as bundle:
        hits = bundle.searcher.hits(bundle.searcher.search([TEXTS[7]], 1))[0]
        assert [hit.id for hit in hits] == ["d7"]
        return bundle.label


def test_killed_while_a_version_is_made(versions: BundleVersions, make: Make) -> None:
    step, before = 1, [1]
    while killed_at(step, SYNCED, make):
        assert answers(versions) == "docs@1"
        assert versions.numbers() in (before, [*before, step_number(versions)])
        before = versions.numbers()
        step = step * 2 + 1
    assert step > 60  # so some died while files were written, and some while they were synced
    number = make().version
    assert versions.numbers()[-1] == number
    assert not [path for path in versions.folder.glob(".*") if path.is_dir()]
    with open_bundle(versions.folder, number):
        pass


def step_number(versions: BundleVersions) -> int:
    return int((versions.folder / ".last-version").read_text())


def test_killed_while_it_is_promoted(versions: BundleVersions) -> None:
    for number in (2, 3):
        copy_version(versions, number)
    promote(versions, 2, Gates())
    before, after = {"champion": 2, "challenger": 3, "previous": 1}, {"champion": 3, "previous": 2}
    versions.point({"challenger": 3})
    _check_kills(versions, lambda: promote(versions, "challenger", Gates()), before, after)


def test_killed_while_it_is_rolled_back(versions: BundleVersions) -> None:
    copy_version(versions, 2)
    promote(versions, 2, Gates())
    before, after = {"champion": 2, "previous": 1}, {"champion": 1, "previous": 2}
    _check_kills(versions, lambda: rollback(versions), before, after)


def _check_kills(
    versions: BundleVersions,
    work: Callable[[], object],
    before: Mapping[Pointer, int],
    after: Mapping[Pointer, int],
) -> None:
    """Kill something that moves pointers at each of its steps: all are as before, or all as after, for every reader."""
    assert versions.pointers() == before
    step, found = 1, []
    while killed_at(step, (*STEPS, (Path, "rmdir"), (store_module.os, "fsync")), work):
        found.append(versions.pointers())
        assert found[-1] in (before, after)
        links = {name: (versions.folder / name).readlink() for name in ("champion", "previous")}  # of other programs
        assert str(links["champion"]) in (str(before["champion"]), str(after["champion"]))
        assert answers(versions) in (f"docs@{before['champion']}", f"docs@{after['champion']}")
        with versions.changing():  # completes the move
            assert {name: int(str((versions.folder / name).readlink())) for name in found[-1]} == found[-1]
            assert not [path for path in versions.folder.glob(".*") if path.is_dir()]
            versions.point({"challenger": None, **before})
        step += 1
    assert found.count(before) > 4
    assert found.count(after) > 4
    assert versions.pointers() == after


def test_killed_while_old_versions_are_removed(versions: BundleVersions) -> None:
    copy_version(versions, 2)
    promote(versions, 2, Gates())
    versions.point({"previous": None})
    step = 1
    while killed_at(step, (*STEPS, (os, "unlink"), (os, "rmdir")), lambda: prune(versions, keep=1)):
        assert answers(versions) == "docs@2"
        if 1 not in versions.numbers():
            break
        step += 1
    assert versions.numbers() == [2]
    copy_version(versions, 3)  # and what was left of it is removed
    assert not [path for path in versions.folder.glob(".*") if path.is_dir()]


@pytest.mark.parametrize(("write", "moved"), [("mkdir", 1), ("symlink_to", 1), ("symlink_to", 2), ("rename", 1)])
@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_full_disk_while_pointers_move(
    versions: BundleVersions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    write: str,
    moved: int,
) -> None:
    copy_version(versions, 2)
    if command == "rollback":
        promote(versions, 2, Gates())
    before = versions.pointers()
    real, calls = getattr(Path, write), 0

    def full(path: Path, *arguments: object, **named: object) -> object:
        nonlocal calls
        if ".prepared-" not in str(path):
            return real(path, *arguments, **named)
        calls += 1
        if calls == moved:
            names = [*map(str, arguments), None, str(path)] if write == "symlink_to" else [str(path)]  # as the system
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *names)
        return real(path, *arguments, **named)

    named = "docs@2" if command == "promote" else "docs"
    with monkeypatch.context() as patch:
        patch.setattr(Path, write, full)
        assert main(["bundle", command, named, f"bundle.dir={versions.dir}"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "embfit: error: the disk is full: " in said
    assert "; free some space, or put bundle.dir on another disk" in said
    assert "Traceback" not in said
    assert calls == moved
    assert versions.pointers() == before
    assert not [path for path in versions.folder.glob(".*") if path.is_dir()]
    assert main(["bundle", command, named, f"bundle.dir={versions.dir}"]) == 0
    after = {"champion": 2, "previous": 1} if command == "promote" else {"champion": 1, "previous": 2}
    assert versions.pointers() == after


@pytest.mark.parametrize("write", ["write_documents", "save_encoder", "write_manifest", "digest_files"])
def test_a_full_disk(versions: BundleVersions, make: Make, monkeypatch: pytest.MonkeyPatch, write: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(publishing, write, full)
        with pytest.raises(OSError, match=r"No space left on device: '.*/docs/2'"):
            make()
    assert versions.numbers() == [1]
    assert not [path for path in versions.folder.glob(".*") if path.is_dir()]
    assert answers(versions) == "docs@1"
    assert make().version == 3
