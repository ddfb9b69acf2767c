"""A version as a Parquet file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from embfit.bundle import BundleVersions, open_bundle
from embfit.bundle.parquet import write_parquet
from embfit.errors import UserError
from embfit.index import TokenBuilder
from tests.bundle.conftest import Make
from tests.conftest import TEXTS, new_late_encoder


def test_a_file_has_vectors_texts_and_what_encodes_queries(versions: BundleVersions, tmp_path: Path) -> None:
    write_parquet(versions.path(1), tmp_path / "documents.parquet")
    table = pq.read_table(tmp_path / "documents.parquet")
    assert table.column_names == ["id", "vector", "title", "text"]
    assert table["id"].to_pylist() == [f"d{row}" for row in range(12)]
    assert table["text"].to_pylist() == TEXTS
    with open_bundle(versions.folder, 1) as bundle:
        vectors = bundle.searcher.index.documents.flat()  # type: ignore[attr-defined]
        found = np.array(table["vector"].to_pylist(), np.float32)
        np.testing.assert_array_equal(found, vectors)
        facts = json.loads(table.schema.metadata[b"embfit"])
        assert facts == {
            "bundle": "docs@1",
            "documents": 12,
            "width": 32,
            "similarity": "inner product",
            "query": bundle.manifest.model.query,
            "document": bundle.manifest.model.document,
        }
    assert str(table.schema.field("vector").type) == "fixed_size_list<element: float>[32]"


def test_texts_that_a_version_does_not_keep_are_not_there(versions: BundleVersions, make: Make, tmp_path: Path) -> None:
    make(kept=False)
    write_parquet(versions.path(2), tmp_path / "documents.parquet")
    assert pq.read_schema(tmp_path / "documents.parquet").names == ["id", "vector"]


def test_several_vectors_a_document(
    versions: BundleVersions, make: Make, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    encoder = new_late_encoder(tokenizer)
    make(encoder=encoder)
    write_parquet(versions.path(2), tmp_path / "documents.parquet")
    found = pq.read_table(tmp_path / "documents.parquet")["vector"].to_pylist()
    with open_bundle(versions.folder, 2) as bundle:
        vectors = bundle.searcher.index.documents  # type: ignore[attr-defined]
        assert [len(one) for one in found] == vectors.counts.tolist()
        np.testing.assert_array_equal(np.array(found[3], np.float32), vectors.part(3, 4).flat())
    make(encoder=encoder, builder=TokenBuilder(format="int8"))
    with pytest.raises(UserError, match="docs@3 has an index of kind tokens, which keeps no vectors as they were"):
        write_parquet(versions.path(3), tmp_path / "documents.parquet")
