"""Every kind of index gives the same hits after a detour by the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embfit.errors import UserError
from embfit.index import ApproximateIndex, BM25Index, CompressedIndex, ExactIndex, FunnelIndex, Index, load_index
from embfit.vectors import Vectors

RANDOM = np.random.default_rng(0)
DOCUMENTS = Vectors(RANDOM.standard_normal((400, 16), np.float32))
TOKENS = Vectors(DOCUMENTS.rows, np.arange(0, 401, 4))
QUERIES = Vectors(RANDOM.standard_normal((5, 16), np.float32))
TEXTS = ["a cat sleeps", "cats and dogs", "a dog barks"]

INDEXES: dict[str, tuple[Index[Any], Any]] = {
    "exact": (ExactIndex(DOCUMENTS, "made"), QUERIES),
    "cut": (ExactIndex(DOCUMENTS.cut(8), "made"), QUERIES.cut(8)),
    "tokens": (ExactIndex(TOKENS, "made"), QUERIES),
    "ivf": (ApproximateIndex.build(DOCUMENTS, "ivf", "made", seed=3), QUERIES),
    "hnsw": (ApproximateIndex.build(DOCUMENTS, "hnsw", "made"), QUERIES),
    "float32": (CompressedIndex.build(DOCUMENTS, "float32", "made"), QUERIES),
    "int8": (CompressedIndex.build(DOCUMENTS, "int8", "made"), QUERIES),
    "binary": (CompressedIndex.build(DOCUMENTS.cut(12), "binary", "made"), QUERIES.cut(12)),
    "funnel": (FunnelIndex.build(DOCUMENTS, 6, "int8", 20, "made"), QUERIES),
    "words": (BM25Index.build(TEXTS, k1=0.9, source="made"), ["cats", "dogs barked"]),
}


@pytest.mark.parametrize("name", INDEXES)
def test_a_saved_index_gives_the_same_hits_and_scores(name: str, tmp_path: Path) -> None:
    index, queries = INDEXES[name]
    index.save(tmp_path)
    loaded = load_index(tmp_path)
    assert (type(loaded), len(loaded), loaded.fingerprint) == (type(index), len(index), index.fingerprint)
    scores, rows = index.search(queries, 3)
    for wanted, got in zip((scores, rows), loaded.search(queries, 3), strict=True):
        np.testing.assert_array_equal(wanted, got)
    np.testing.assert_array_equal(index.score(queries, rows), loaded.score(queries, rows))


def test_fingerprints_tell_documents_and_searches_apart() -> None:
    others = [
        ExactIndex(DOCUMENTS, "made otherwise"),
        ApproximateIndex.build(DOCUMENTS, "ivf", "made", seed=4),
        CompressedIndex.build(DOCUMENTS, "binary", "made"),
        FunnelIndex.build(DOCUMENTS, 6, "int8", 21, "made"),
        FunnelIndex.build(DOCUMENTS, 7, "int8", 20, "made"),
        BM25Index.build(TEXTS, k1=1.0, source="made"),
        BM25Index.build(TEXTS, k1=0.9, source="made otherwise"),
    ]
    all_of_them = [index for name, (index, _) in INDEXES.items() if name != "tokens"]
    prints = [index.fingerprint for index in (*all_of_them, *others)]
    assert len(set(prints)) == len(prints)


def test_what_cannot_be_published_is_said(tmp_path: Path) -> None:
    broken = np.ones((3, 2), np.float32)
    broken[2, 1] = np.inf
    with pytest.raises(ValueError, match="row 2 of the documents is not finite"):
        ExactIndex(Vectors(broken)).save(tmp_path)
    with pytest.raises(UserError, match=r"holds no index: index.json cannot be read"):
        load_index(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"kind": "magic"}))
    with pytest.raises(UserError, match="there is no index of kind 'magic'; the kinds are exact, approximate"):
        load_index(tmp_path)
