"""Opening a version: encoder and index belong together, or it is refused."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from embfit.bundle import BundleVersions, open_bundle, opening
from embfit.bundle.manifest import digest_files, read_manifest, write_manifest
from embfit.errors import UserError
from embfit.index import ExactIndex
from embfit.model import Encoder, save_encoder
from embfit.model.back_ends.choice import choose_back_end, installed
from embfit.model.precision import Precision
from embfit.store import Store
from tests.bundle.conftest import Make, copy_version
from tests.conftest import TEXTS


def test_it_answers_as_its_parts_do(versions: BundleVersions, tiny_encoder: Encoder) -> None:
    with open_bundle(versions.folder) as bundle:
        found = bundle.searcher.hits(bundle.searcher.search(["the blood in the lungs"], 3))[0]
        assert (bundle.label, bundle.folder, bundle.probe_distance < 1e-6) == ("docs@1", versions.path(1), True)
    documents, query = tiny_encoder.embed(TEXTS, "document"), tiny_encoder.embed(["the blood in the lungs"], "query")
    scores, rows = ExactIndex(documents).search(query, 3)
    assert [hit.row for hit in found] == rows[0].tolist()
    assert [hit.score for hit in found] == pytest.approx(scores[0].tolist(), abs=1e-6)
    assert [(hit.id, hit.title, hit.text) for hit in found] == [(f"d{row}", "", TEXTS[row]) for row in rows[0]]


def test_a_version_is_named_by_number_by_pointer_or_by_its_folder(versions: BundleVersions) -> None:
    copy_version(versions, 2)
    for path, which in ((versions.folder, 2), (versions.folder, "2"), (versions.path(2), "champion")):
        with open_bundle(path, which) as bundle:
            assert bundle.label == "docs@2"
    with open_bundle(versions.folder / "champion") as bundle:
        assert bundle.folder == versions.path(1)  # and not the link, which may come to mean another one


def test_a_damaged_version_is_refused_and_claims_nothing(versions: BundleVersions) -> None:
    path = versions.path(1) / "index" / "vectors.npy"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"docs@1 is damaged: .*vectors\.npy has \d+ bytes"):
        open_bundle(versions.folder)
    with versions.changing():
        assert versions.remove(1)


def sealed(versions: BundleVersions, **changes: object) -> None:
    """Write the manifest anew, so that the digests are those of the files that are there now."""
    folder = versions.path(1)
    manifest = read_manifest(folder)
    (folder / "manifest.json").unlink()
    write_manifest(folder, replace(manifest, files=digest_files(folder), **changes))  # type: ignore[arg-type]


def test_another_encoder_is_refused_however_well_its_files_fit(
    versions: BundleVersions, make_encoder: Callable[..., Encoder]
) -> None:
    shutil.rmtree(versions.path(1) / "model")
    save_encoder(make_encoder(query_prompt="question: "), versions.path(1) / "model")
    sealed(versions)
    with pytest.raises(UserError, match=r"docs@1: its model gives other vectors here .* limit 0\.001.*torch 2"):
        open_bundle(versions.folder)


def test_an_index_of_other_vectors_is_refused(versions: BundleVersions) -> None:
    path = versions.path(1) / "index" / "index.json"
    settings = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps(settings | {"source": "another"}))
    sealed(versions)
    with pytest.raises(UserError, match="docs@1 is damaged: its index is not that of its manifest"):
        open_bundle(versions.folder)


def test_another_release_with_equal_vectors_is_told_and_opened(
    versions: BundleVersions, caplog: pytest.LogCaptureFixture
) -> None:
    sealed(versions, model=replace(read_manifest(versions.path(1)).model, query="another", versions={"torch": "1.0"}))
    with caplog.at_level(logging.WARNING), open_bundle(versions.folder) as bundle:
        assert bundle.probe_distance < 1e-6
    assert "docs@1 was made with torch 1.0; this machine has another release or setting" in caplog.text


@pytest.mark.parametrize(
    ("multiplies", "asked", "used"),
    [(False, "auto", "fp32"), (True, "auto", "bf16"), (False, "bf16", "bf16"), (True, "fp32", "fp32")],
)
def test_a_version_of_a_machine_with_bf16(
    versions: BundleVersions,
    make_encoder: Callable[..., Encoder],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    multiplies: bool,
    asked: Precision,
    used: str,
) -> None:
    """Its vectors differ from those in fp32 by less than the limit, so it is opened, and the machine's lack is told."""
    encoder = make_encoder(precision="bf16")
    manifest = read_manifest(versions.path(1))
    probes = versions.path(1) / "probes.npy"
    probes.unlink()
    np.save(probes, encoder.embed(list(manifest.model.probes), "query").rows)
    model = replace(manifest.model, precision="bf16", query=encoder.fingerprint("query"))
    sealed(versions, model=model)
    monkeypatch.setattr(opening, "multiplies_bf16", lambda device: multiplies)
    with open_bundle(versions.folder, precision=asked) as bundle:
        assert bundle.encoder.settings.precision == used
        assert (bundle.probe_distance == 0) is (used == "bf16")
        assert bundle.probe_distance < 1e-3
    assert ("docs@1 was encoded in bf16, which this machine does not multiply" in caplog.text) is (
        not multiplies and asked == "auto"
    )
    assert "another release" not in caplog.text


@pytest.mark.skipif(not installed("onnx"), reason="onnxruntime is not installed")
def test_a_version_is_asked_by_the_back_end_that_made_it(
    versions: BundleVersions,
    make: Make,
    make_encoder: Callable[..., Encoder],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder = make_encoder(precision="fp32")
    choose_back_end(encoder, "onnx", "fp32", store)
    made = make(encoder=encoder)
    assert (made.model.back_end, made.model.precision, "onnxruntime" in made.model.versions) == ("onnx", "fp32", True)
    assert made.documents.reused == 0  # version 1 has PyTorch's vectors
    for asked, used in ((None, "onnx"), ("torch", "torch")):
        with open_bundle(versions.folder, made.version, backend=asked, store=store) as bundle:
            assert (bundle.encoder.back_end, bundle.encoder.computes_in) == (used, "fp32")
            assert bundle.probe_distance < 1e-6
    with open_bundle(versions.folder, 1, backend="onnx", store=store) as bundle:
        assert bundle.encoder.back_end == "onnx"
    assert "another release" not in caplog.text
    monkeypatch.setattr(opening, "installed", lambda back_end: False)
    with open_bundle(versions.folder, made.version) as bundle:
        assert bundle.encoder.back_end == "torch"
    assert "docs@2 was encoded by onnx, which is not installed (pip install 'embfit[onnx]')" in caplog.text


def test_what_a_pointer_names_may_change_meanwhile(versions: BundleVersions, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_version(versions, 2)
    opened = opening._open

    def pruned(folder: object, *rest: object) -> object:
        if folder == versions.folder / "1":
            versions.point({"champion": 2})
            with versions.changing():
                versions.remove(1)
        return opened(folder, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(opening, "_open", pruned)
    with open_bundle(versions.folder) as bundle:
        assert bundle.label == "docs@2"
