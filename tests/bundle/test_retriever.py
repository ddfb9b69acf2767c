"""`embfit.load`: models and bundles from Python."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embfit
from embfit.bundle import BundleVersions
from embfit.errors import UserError
from embfit.model import CrossEncoder, Encoder, save_cross_encoder, save_encoder
from tests.bundle.conftest import Make, copy_version
from tests.conftest import TEXTS


def test_a_bundle_searches_and_embeds(versions: BundleVersions, tiny_encoder: Encoder) -> None:
    copy_version(versions, 2)
    champion, second = embfit.load(versions.folder), embfit.load(f"{versions.folder}@2")
    assert [one.bundle.label for one in (champion, second) if one.bundle] == ["docs@1", "docs@2"]
    np.testing.assert_allclose(champion.encode(["fever"], "query"), tiny_encoder.encode(["fever"], "query"), atol=1e-6)
    assert champion.embed(["fever"], "document").single
    hits = champion.search(TEXTS[7], k=2)
    assert (hits[0].id, hits[0].text, len(hits)) == ("d7", TEXTS[7], 2)
    assert champion.search_all(["kidneys", "vaccines"], k=1, mode="words") == [
        champion.search("kidneys", 1, "words"),
        champion.search("vaccines", 1, "words"),
    ]
    assert champion.search("kidneys", 1, "hybrid")[0].id == "d7"
    with pytest.raises(UserError, match="no metadata column 'year'"):
        champion.search("kidneys", where={"year": 1})


def test_a_model_searches_texts_that_it_is_given(tiny_encoder: Encoder, tmp_path: Path) -> None:
    save_encoder(tiny_encoder, tmp_path / "model")
    model = embfit.load(tmp_path / "model")
    with pytest.raises(UserError, match=r"no documents to search; load a bundle, or call index\(texts\) first"):
        model.search("kidneys")
    texts = model.index(TEXTS, ids=[f"t{row}" for row in range(12)])
    assert texts.search(TEXTS[3], 1)[0].id == "t3"
    assert model.index(TEXTS).search("kidneys", 1, "words")[0].id == "7"
    with pytest.raises(UserError, match="2 texts have 1 different ids"):
        model.index(TEXTS[:2], ids=["a", "a"])
    with pytest.raises(UserError, match="no texts to index"):
        model.index([])


def test_the_guides_snippet_for_sentence_transformers(
    versions: BundleVersions, make: Make, make_encoder: Callable[..., Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sentence_transformers")
    prompted = make_encoder(query_prompt="query: ", document_prompt="passage: ")
    make(encoder=prompted)
    versions.point({"champion": 2})
    guide = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text(encoding="utf-8")
    [snippet] = [block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "SentenceTransf" in block]
    monkeypatch.chdir(versions.dir.parent)
    found: dict[str, Any] = {}
    exec(snippet, found)
    expected = prompted.encode(["how do I open a file"], "query")[0]
    np.testing.assert_allclose(found["query"], expected, atol=1e-5)
    np.testing.assert_allclose(found["documents"], prompted.encode(["open(path)", "close()"], "document"), atol=1e-5)


def test_reranking_by_vectors_and_by_a_cross_encoder(
    tiny_encoder: Encoder, tiny_ranker: CrossEncoder, tmp_path: Path
) -> None:
    save_encoder(tiny_encoder, tmp_path / "model")
    save_cross_encoder(tiny_ranker, tmp_path / "ranker")
    by_vectors = embfit.load(tmp_path / "model").rerank(TEXTS[2], TEXTS, top=3)
    assert (by_vectors[0].place, by_vectors[0].text, len(by_vectors)) == (2, TEXTS[2], 3)
    ranker = CrossEncoder.load(tmp_path / "ranker")  # in this machine's precision
    scores = ranker.score([("kidneys", text) for text in TEXTS])
    for retriever in (
        embfit.load(tmp_path / "model", reranker=tmp_path / "ranker"),
        embfit.load(tmp_path / "ranker"),
    ):
        assert [one.place for one in retriever.rerank("kidneys", TEXTS)] == np.argsort(-scores, kind="stable").tolist()
    with pytest.raises(UserError, match="a cross-encoder scores pairs and embeds no text"):
        retriever.encode(TEXTS, "document")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        embfit.load(tmp_path / "nothing")
