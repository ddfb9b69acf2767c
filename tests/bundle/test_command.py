"""`embfit bundle`, as it is typed: what it prints, and how it ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from embfit.app import main
from embfit.bundle import BundleVersions, open_bundle
from tests.bundle.conftest import CHANGED, Make, copy_version

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def run(versions: BundleVersions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `embfit bundle` beside the folder `bundles`; return the exit code and the lines that were printed."""
    monkeypatch.chdir(versions.dir.parent)
    monkeypatch.delenv("EMBFIT_CONFIG_PATH", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(versions.dir))

    def run(*arguments: str) -> tuple[int, list[str]]:
        code = main(["bundle", *arguments])
        printed = capsys.readouterr()
        return code, (printed.out + printed.err).splitlines()

    return run


def test_versions_are_listed(run: Run, versions: BundleVersions) -> None:
    copy_version(versions, 2)
    (versions.path(2) / "manifest.json").chmod(0o644)
    (versions.path(2) / "manifest.json").write_text("{")
    code, lines = run("list")
    assert code == 0
    assert [line.split()[:2] for line in lines] == [["version", "is"], ["docs@1", "champion"], ["docs@2", "-"]]
    assert lines[0].split()[2:] == ["made", "documents", "index", "MB", "ndcg@10", "p50", "ms"]
    assert lines[1].split()[3:6] == ["12", "exact", "0.1"]
    assert "damaged" in lines[2]
    assert run("list", "docs", "bundle.dir=bundles") == (code, lines)


def test_promotion_and_back(run: Run, versions: BundleVersions) -> None:
    copy_version(versions, 2)
    versions.point({"challenger": 2})
    code, lines = run("promote", "docs")
    assert (code, lines[-1]) == (0, "docs@2 is champion")
    assert lines[0] == "passed  recall: recall@10 of the exact search 1.0000, limit 0.95"
    assert run("rollback", "docs") == (0, ["docs@1 is champion, in the place of docs@2"])
    code, lines = run("promote", "docs@2", "bundle.gates.slices={rare:0.4}")
    assert code == 1
    assert lines[0] == (
        "FAILED  slices.rare: ndcg@10 of rare was not measured, and 0.4 is asked for; judge some queries, or remove "
        "the limit"
    )
    assert lines[-1] == "embfit: error: docs@2 is not promoted: slices.rare; --force promotes it all the same"
    code, lines = run("promote", "docs@2", "--force", "bundle.gates.slices={rare:0.4}")
    assert (code, lines[-1]) == (0, "docs@2 is champion, though gates did not let it pass (--force)")
    assert versions.pointers() == {"champion": 2, "previous": 1}


def test_verify(run: Run, versions: BundleVersions) -> None:
    copy_version(versions, 2)
    (versions.path(2) / "probes.npy").unlink()
    code, lines = run("verify", "docs")
    assert code == 1
    assert lines[0].startswith("ok       docs@1: 19 files as published")
    assert lines[1].startswith("DAMAGED  docs@2: docs@2 is damaged: ")
    assert lines[2] == "embfit: error: docs: 1 of 2 versions cannot be used"
    assert run("verify", "docs@1") == (0, lines[:1])


def test_prune(run: Run, versions: BundleVersions) -> None:
    for number in range(2, 6):
        copy_version(versions, number)
    with open_bundle(versions.folder, 2):
        assert run("prune", "docs", "--keep", "1") == (
            0,
            ["old: docs@2, docs@3, docs@4; nothing was removed, --yes removes them"],
        )
        told = ["removed: docs@3, docs@4", "kept: docs@2: a process has it open"]
        assert run("prune", "docs", "--keep", "1", "--yes") == (0, told)
    assert versions.numbers() == [1, 2, 5]


def test_what_differs(run: Run, make: Make) -> None:
    make(texts=CHANGED)
    code, lines = run("diff", "docs@1", "docs@2")
    assert code == 0
    assert [" ".join(line.split()) for line in lines[:4]] == [
        "documents:",
        "added 1 d12",
        "removed 1 d3",
        "changed 1 d5",
    ]
    assert "model: no difference" in lines
    assert any(line.startswith("answers") for line in lines)
    assert run("diff", "docs@1", "docs@1")[1] == [
        f"{heading}: no difference" for heading in ("documents", "model", "index", "quality", "answers")
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["list", "dosc"], 1, "bundles has no bundle 'dosc'; did you mean 'docs'?"),
        (["promote", "docs"], 1, "docs has no challenger; it has versions 1"),
        (["promote", "docs@9"], 1, "docs@9: there is no version 9"),
        (["rollback", "docs"], 1, "docs has no previous version to go back to"),
        (["rollback", "docs@1"], 2, "rollback goes to the previous version; embfit bundle promote docs@1 to another"),
        (["verify", "../x"], 2, "bundle.name=../x: a bundle's name has letters"),
        (["promote", "docs", "bundle.gates.flor=1"], 2, "flor"),
        (["prune", "docs", "--keep", "x"], 2, "'x' is not a number of versions"),
        (["burn", "docs"], 2, "invalid choice: 'burn'"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], code: int, told: str) -> None:
    found, lines = run(*arguments)
    assert found == code
    assert told in lines[-1]
