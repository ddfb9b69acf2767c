"""Fixtures: a bundle of twelve documents with one version, and what makes further ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from embfit.bundle import BundleVersions, Manifest
from embfit.bundle.publishing import Contents, publish
from embfit.evaluator import Retrieval
from embfit.index import BM25Index, ExactBuilder, IndexBuilder
from embfit.model import Encoder, Pretrained
from embfit.records import Collection
from embfit.store import Store
from tests.conftest import TEXTS, make_collection, new_encoder

Make = Callable[..., Manifest]


def documents(texts: dict[str, str]) -> Collection:
    """Documents of which `d10` and `d11` answer the two queries of the split `test`."""
    queries = {f"q{row}": " ".join(TEXTS[row].split()[:4]) for row in (10, 11)}
    return make_collection(texts, queries, {"test": {f"q{row}": {f"d{row}": 1} for row in (10, 11)}})


ALL = {f"d{row}": text for row, text in enumerate(TEXTS)}
CHANGED = {name: text for name, text in ALL.items() if name != "d3"} | {"d5": "a virus is no cell", "d12": "an itch"}


def make_version(
    versions: BundleVersions,
    encoder: Encoder,
    store: Store,
    texts: dict[str, str] = ALL,
    builder: IndexBuilder | None = None,
    kept: bool = True,
    **known: object,
) -> Manifest:
    """Publish a version, as `task=index` does; no pointer is moved. `known` says what the model was trained on."""
    collection = documents(texts)
    context = Retrieval(near_copy=None).context(collection, store, Pretrained(None), load=lambda: encoder)
    words = BM25Index.build(collection.document_texts(), source=collection.corpus_digest) if texts else None
    made = Contents(encoder, collection, builder or ExactBuilder(), words, texts=kept, **known)
    return publish(versions, made, [context], store).manifest


@pytest.fixture(scope="session")
def _published(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    versions = BundleVersions(folder, "docs")
    make_version(versions, new_encoder(tokenizer), Store(enabled=False))
    versions.point({"champion": 1})
    return folder


@pytest.fixture
def versions(_published: Path, tmp_path: Path) -> BundleVersions:
    """A bundle whose version 1 is champion; the test may change it."""
    shutil.copytree(_published, tmp_path / "bundles", symlinks=True)
    return BundleVersions(tmp_path / "bundles", "docs")


@pytest.fixture
def make(versions: BundleVersions, tiny_encoder: Encoder, store: Store) -> Make:
    """Make another version of `versions`; keyword arguments are those of `make_version`."""
    return lambda encoder=tiny_encoder, **given: make_version(versions, encoder, store, **given)


def copy_version(versions: BundleVersions, number: int) -> int:
    """Publish a copy of the champion under another number, which is quicker than making one."""
    champion = versions.path()
    with versions.publishing() as (given, folder):
        shutil.copytree(champion, folder, dirs_exist_ok=True)
        manifest = folder / "manifest.json"
        manifest.chmod(0o644)
        manifest.write_text(manifest.read_text().replace(f'"version": {champion.name},', f'"version": {given},'))
    assert given == number
    return given
