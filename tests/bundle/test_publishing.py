"""Making versions: only what changed is encoded, and nothing half-made is ever seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from embfit.bundle import BundleVersions, open_bundle
from embfit.bundle.seen_documents import SeenDocuments
from embfit.errors import UserError
from embfit.index import ApproximateBuilder, ApproximateIndex, AutoBuilder, ExactIndex, FunnelBuilder
from embfit.model import Encoder, LateInteractionEncoder, Pretrained
from embfit.store import Store
from tests.bundle.conftest import CHANGED, Make, make_version
from tests.conftest import TEXTS, new_late_encoder

QUERY = "the blood in the lungs"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were encoded into the store, each time."""
    found: list[int] = []
    encode_tokens = Encoder.encode_batches

    def counted(self: Encoder, tokens: object, batches: object, out: object, advance: object) -> None:
        found.append(len(tokens))  # type: ignore[arg-type]
        encode_tokens(self, tokens, batches, out, advance)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "encode_batches", counted)
    return found


def answers_as_a_new_one(versions: BundleVersions, encoder: Encoder, texts: dict[str, str]) -> None:
    """Hold a search of the newest version to an exact one of vectors that are all made anew."""
    with open_bundle(versions.folder, versions.numbers()[-1]) as bundle:
        found = bundle.searcher.hits(bundle.searcher.search([QUERY], 5))[0]
    exact = ExactIndex(encoder.embed(texts.values(), "document"))
    scores, rows = exact.search(encoder.embed([QUERY], "query"), 5)
    assert [hit.id for hit in found] == [list(texts)[row] for row in rows[0]]
    assert [hit.text for hit in found] == [list(texts.values())[row] for row in rows[0]]
    assert [hit.score for hit in found] == pytest.approx(scores[0].tolist(), abs=1e-6)


def test_only_new_and_changed_documents_are_encoded(
    versions: BundleVersions, make: Make, tiny_encoder: Encoder, encoded: list[int]
) -> None:
    manifest = make(texts=CHANGED)
    assert (manifest.version, manifest.based_on) == (2, 1)
    assert (manifest.documents.encoded, manifest.documents.reused, manifest.documents.removed) == (2, 10, 2)
    assert encoded[0] == 2
    answers_as_a_new_one(versions, tiny_encoder, CHANGED)
    assert make(texts=CHANGED).documents.encoded == 0  # and this one stands on that
    answers_as_a_new_one(versions, tiny_encoder, CHANGED)


def test_an_incremental_version_is_known_as_one_that_is_made_anew(
    versions: BundleVersions, make: Make, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    grown = make(texts=CHANGED)
    fresh = make_version(BundleVersions(tmp_path / "other", "docs"), tiny_encoder, Store(enabled=False), CHANGED)
    assert grown.index.fingerprint == fresh.index.fingerprint
    assert grown.documents.sha256 == fresh.documents.sha256


def test_another_model_encodes_all_and_another_query_prompt_none(
    versions: BundleVersions, make: Make, make_encoder: Callable[..., Encoder]
) -> None:
    prompted = make_encoder(query_prompt="query: ")
    assert make(prompted).documents.encoded == 0
    other = make_encoder(document_prompt="passage: ")
    manifest = make(other)
    assert (manifest.documents.encoded, manifest.based_on) == (12, None)


def test_a_damaged_version_hands_nothing_on(
    versions: BundleVersions, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    path = versions.path(1) / "index" / "vectors.npy"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    assert make().documents.encoded == 12
    assert "its vectors are not reused" in caplog.text


@pytest.mark.parametrize("method", ["hnsw", "ivf", "int8", "bf16"])
def test_an_approximate_index_of_a_changed_folder(
    versions: BundleVersions, make: Make, tiny_encoder: Encoder, method: str
) -> None:
    builder = ApproximateBuilder(method, rebuild_share=0.5)  # type: ignore[arg-type]
    assert make(builder=builder).index.recall == 1.0
    manifest = make(builder=builder, texts=CHANGED)
    assert manifest.documents.encoded == 2
    answers_as_a_new_one(versions, tiny_encoder, CHANGED)
    with open_bundle(versions.folder, 3) as bundle:
        index = bundle.searcher.index
        assert isinstance(index, ApproximateIndex)
        assert index.removed_share == (2 / 14 if method in ("hnsw", "ivf") else 0)


def test_a_funnel_of_a_changed_folder(versions: BundleVersions, make: Make, tiny_encoder: Encoder) -> None:
    builder = FunnelBuilder(8, "int8", shortlist=12)  # all documents
    manifest = make(builder=builder)
    assert (manifest.index.kind, manifest.index.recall, manifest.documents.reused) == ("funnel", 1.0, 12)
    assert make(builder=builder, texts=CHANGED).documents.encoded == 2
    answers_as_a_new_one(versions, tiny_encoder, CHANGED)


def test_late_interaction_is_indexed_by_tokens(
    versions: BundleVersions, make: Make, tokenizer: PreTrainedTokenizerFast
) -> None:
    encoder = new_late_encoder(tokenizer)
    manifest = make(encoder=encoder, builder=AutoBuilder())
    assert (manifest.index.kind, manifest.index.recall) == ("tokens", 1.0)
    assert manifest.index.bytes < 3 * encoder.embed(TEXTS, "document").rows.size + 20_000  # float16, and its manifest
    with open_bundle(versions.folder, 2) as bundle:
        assert isinstance(bundle.encoder, LateInteractionEncoder)
        found = bundle.searcher.search([QUERY], 12, mode="dense")
        expected = ExactIndex(encoder.embed(TEXTS, "document")).search(encoder.embed([QUERY], "query"), 12)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_allclose(found[0], expected[0], atol=2e-3)
    assert make(encoder=encoder, builder=AutoBuilder(), texts=CHANGED).documents.encoded == 12


def test_texts_may_be_left_out(versions: BundleVersions, make: Make) -> None:
    manifest = make(kept=False)
    assert (manifest.documents.texts, manifest.documents.columns) == (False, ["_id"])
    with open_bundle(versions.folder, 2) as bundle:
        hits = bundle.searcher.hits(bundle.searcher.search([QUERY], 2))[0]
    assert [(hit.title, hit.text) for hit in hits] == [("", "")] * 2
    assert make(texts=CHANGED).documents.reused == 10  # its digests are there


def test_an_adapter_is_merged_into_what_is_published(
    versions: BundleVersions, make: Make, tiny_encoder: Encoder
) -> None:
    peft = pytest.importorskip("peft")
    backbone = tiny_encoder.backbone
    backbone.add_adapter(peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False))
    expected = tiny_encoder.encode([QUERY], "query")
    make(tiny_encoder)
    assert not (versions.path(2) / "model" / "adapter_config.json").exists()
    with open_bundle(versions.folder, 2) as bundle:
        np.testing.assert_allclose(bundle.encoder.encode([QUERY], "query"), expected, atol=1e-5)


def test_no_documents_and_vectors_that_are_no_numbers(
    versions: BundleVersions, make: Make, make_encoder: Callable[..., Encoder]
) -> None:
    with pytest.raises(UserError, match="small has no documents; a bundle needs one"):
        make(texts={})
    broken = make_encoder()
    with torch.no_grad():
        broken.backbone.embeddings.LayerNorm.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="12 of 12 texts have no vector, or one of NaN"):
        make(broken)
    assert versions.numbers() == [1]


def test_what_the_model_was_trained_on_is_handed_on(versions: BundleVersions, make: Make) -> None:
    assert make().trained_on == ""
    seen = SeenDocuments.of(["d3", "d5"])
    assert make(trained_on="these pairs", seen=seen).trained_on == "these pairs"
    assert make(texts=CHANGED).trained_on == "these pairs"  # the same model again
    place = str(versions.path(3) / "model")
    changed = Pretrained(place, precision="bf16").load("cpu")
    manifest = make(encoder=changed)  # its weights, in another precision
    assert (manifest.trained_on, manifest.documents.encoded) == ("these pairs", 12)
    assert SeenDocuments.read(versions.path(4)).digests.tolist() == seen.digests.tolist()
    assert SeenDocuments.read(versions.path(5)).digests.tolist() == seen.digests.tolist()
    assert make(encoder=changed, trained_on="others").trained_on == "others"
    other = Pretrained(place, query_prompt="q: ").load("cpu")
    other.source = "elsewhere"
    assert make(encoder=other).trained_on == ""
