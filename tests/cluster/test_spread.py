"""What is spread over workers equals what one machine makes, bit for bit, whichever order its parts come in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from embfit.cluster.connection import computing_on, current_cluster
from embfit.errors import UserError
from embfit.index.exact import ExactIndex
from embfit.index.token_vectors import TokenIndex, TokenIndexing
from embfit.index.token_vectors.codec import TokenFormat
from embfit.miner import DenseMiner
from embfit.model import CrossEncoder, Encoder, embed
from embfit.model.scoring import score_pairs
from embfit.records import Collection
from embfit.store import Store
from embfit.vectors import Vectors
from tests.cluster.in_process import InProcess, Lost
from tests.conftest import TEXTS, new_late_encoder
from tests.generator.test_local import generator, new_writer, written

pytestmark = pytest.mark.usefixtures("small_parts")
PAIRS = np.stack(np.divmod(np.arange(12 * 12), 12), axis=1)


def test_vectors_are_the_same(
    small_collection: Collection, make_encoder: Callable[..., Encoder], tmp_path: Path
) -> None:
    alone = embed(make_encoder(), small_collection, "document", Store(tmp_path / "alone"))
    cluster, store = InProcess(), Store(tmp_path / "spread")
    with computing_on(cluster):
        found = embed(make_encoder(), small_collection, "document", store)
    np.testing.assert_array_equal(found.vectors.rows, alone.vectors.rows)
    assert found.fingerprint == alone.fingerprint
    assert cluster.done == [4, 3, 2, 1, 0]
    entry = next(path for path in (store.dir / "embeddings").iterdir() if path.is_dir())
    assert sorted(path.name for path in entry.iterdir()) == ["key.json", "matrix.npy"]
    assert current_cluster() is None


def test_several_vectors_of_a_text_are_the_same(
    small_collection: Collection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    encoder = new_late_encoder(tokenizer)
    alone = embed(encoder, small_collection, "document", Store(tmp_path / "alone")).vectors
    cluster = InProcess()
    with computing_on(cluster):
        found = embed(encoder, small_collection, "document", Store(tmp_path / "spread")).vectors
    np.testing.assert_array_equal(found.rows, alone.rows)
    np.testing.assert_array_equal(found.starts, alone.starts)
    assert len(cluster.done) > 1


@pytest.mark.parametrize("spread_again", [True, False])
def test_only_parts_that_are_missing_are_encoded(
    spread_again: bool,
    small_collection: Collection,
    make_encoder: Callable[..., Encoder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = embed(make_encoder(), small_collection, "document", Store(tmp_path / "alone")).vectors.rows
    encoder, store, first = make_encoder(), Store(tmp_path / "spread"), InProcess(lost_after=1)
    with computing_on(first), pytest.raises(Lost):
        embed(encoder, small_collection, "document", store)
    assert first.done == [4]
    if spread_again:
        second = InProcess()
        with computing_on(second):
            found = embed(encoder, small_collection, "document", Store(store.dir))
        assert second.done == [3, 2, 1, 0]
    else:
        encoded: list[int] = []
        forward = encoder.forward
        monkeypatch.setattr(encoder, "forward", lambda *texts: (encoded.append(len(texts[0])), forward(*texts))[1])
        found = embed(encoder, small_collection, "document", Store(store.dir))
        plan = encoder.plan(encoder.tokenize(TEXTS, "document"))
        assert encoded == [len(batch) for number, batch in enumerate(plan) if number % 5 != 4]
    np.testing.assert_array_equal(found.vectors.rows, alone)


def test_what_one_machine_has_begun_is_not_sent(
    small_collection: Collection, make_encoder: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = embed(make_encoder(), small_collection, "document", Store(tmp_path / "alone")).vectors.rows
    encoder, store = make_encoder(), Store(tmp_path / "begun")
    monkeypatch.setattr("embfit.model.encoding.SECONDS", 0.0)
    forward, encoded = encoder.forward, []

    def interrupted(*texts: object) -> object:
        if len(encoded) == len(encoder.plan(encoder.tokenize(TEXTS, "document"))) - 2:
            raise Lost
        encoded.append(texts)
        return forward(*texts)  # type: ignore[arg-type]  # token ids and roles

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "forward", interrupted)
        with pytest.raises(Lost):
            embed(encoder, small_collection, "document", store)
    cluster = InProcess()
    with computing_on(cluster):
        found = embed(make_encoder(), small_collection, "document", Store(store.dir)).vectors.rows
    assert len(cluster.done) == 2  # the two last batches are in two parts
    np.testing.assert_array_equal(found, alone)


def test_scores_of_pairs_are_the_same(small_collection: Collection, tiny_ranker: CrossEncoder, tmp_path: Path) -> None:
    alone = score_pairs(tiny_ranker, small_collection, PAIRS, Store(tmp_path / "alone"))
    cluster = InProcess()
    with computing_on(cluster):
        found = score_pairs(tiny_ranker, small_collection, PAIRS, Store(tmp_path / "spread"))
    np.testing.assert_array_equal(found, alone)
    assert len(cluster.done) > 3
    assert np.ptp(found) > 0.1


def test_scores_that_were_there_are_kept(
    small_collection: Collection, tiny_ranker: CrossEncoder, tmp_path: Path
) -> None:
    store, first, second = Store(tmp_path / "store"), InProcess(lost_after=2), InProcess()
    with computing_on(first), pytest.raises(Lost):
        score_pairs(tiny_ranker, small_collection, PAIRS, store)
    kept = sum(len(np.load(path)) for path in store.dir.glob("scores/*/added-*.npy"))
    assert 0 < kept < len(PAIRS)
    with computing_on(second):
        found = score_pairs(tiny_ranker, small_collection, PAIRS, Store(store.dir))
    np.testing.assert_allclose(
        found, score_pairs(tiny_ranker, small_collection, PAIRS, Store(enabled=False)), atol=1e-5
    )


@pytest.mark.parametrize("kind", ["one vector", "several", "some without any", "cut"])
def test_a_search_finds_the_same(kind: str) -> None:
    """Scores of many copies tie across parts; the lower row comes first wherever it was found."""
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((23, 8)).astype(np.float32)
    rows[[3, 9, 20]] = rows[4]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    starts = {"several": np.array([0, 2, 4, 7, 12, 13, 23]), "some without any": np.array([0, 2, 2, 2, 12, 13, 23, 23])}
    documents = Vectors(rows, starts.get(kind), 4 if kind == "cut" else None)
    queries = Vectors(rows[[4, 0, 11]]).cut(documents.width)
    alone = ExactIndex(documents).search(queries, len(documents))
    cluster = InProcess()
    with computing_on(cluster):
        found = ExactIndex(documents).search(queries, len(documents))
        few = ExactIndex(documents).search(queries, 3)
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(few, ExactIndex(documents).search(queries, 3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(cluster.done) > 4


def test_a_vector_that_is_not_finite_is_named_by_its_own_row() -> None:
    rows = np.ones((12, 4), np.float32)
    rows[7, 2] = np.nan
    with computing_on(InProcess()), pytest.raises(ValueError, match="row 7 of the documents is not finite"):
        ExactIndex(Vectors(rows)).search(Vectors(np.ones((2, 4), np.float32)), 3)


def test_negatives_are_the_same(
    small_collection: Collection, make_encoder: Callable[..., Encoder], tmp_path: Path
) -> None:
    miner = DenseMiner(negatives=3, relative_margin=None)
    alone = miner.mine(small_collection, make_encoder(), Store(tmp_path / "alone"))
    cluster = InProcess()
    with computing_on(cluster):
        found = miner.mine(small_collection, make_encoder(), Store(tmp_path / "spread"))
    assert found.rows.to_dict() == alone.rows.to_dict()
    assert len(cluster.done) > 6  # documents, queries and the search


def test_what_a_model_writes_is_the_same(small_collection: Collection, tmp_path: Path) -> None:
    made = generator(new_writer(tmp_path / "writer"), batch_size=2)
    alone = written(made, small_collection, tmp_path / "alone")
    cluster = InProcess()
    with computing_on(cluster):
        found = written(made, small_collection, tmp_path / "spread")
    assert found.queries == alone.queries
    assert len(cluster.done) > 2
    assert any(one.text for one in found.queries)


@pytest.mark.parametrize("form", ["residual2", "int8"])
def test_an_index_of_tokens_is_the_same(form: TokenFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((2_400, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    documents = Vectors(rows, np.arange(0, 2_401, 8))
    settings = TokenIndexing(format=form, pool_factor=2)
    monkeypatch.setattr("embfit.index.token_vectors.segment.CHUNK", 200)
    monkeypatch.setattr("embfit.index.token_vectors.encoding.SPREAD_FROM", 1)
    monkeypatch.setattr("embfit.index.token_vectors.encoding.PART_CHUNKS", 3)
    alone = TokenIndex.build(documents, tmp_path / "alone", settings)
    cluster = InProcess()
    with computing_on(cluster):
        found = TokenIndex.build(documents, tmp_path / "spread", settings)
    assert cluster.done == [3, 2, 1, 0]
    assert found.fingerprint == alone.fingerprint  # which names the content of every file


def test_a_converted_back_end_stays_here(
    small_collection: Collection, make_encoder: Callable[..., Encoder], tmp_path: Path
) -> None:
    from embfit.model.back_ends.graph import Graph

    encoder = make_encoder()
    encoder.graph = Graph("openvino", "fp32", tmp_path / "none.xml", 64)
    with (
        computing_on(InProcess()),
        pytest.raises(UserError, match=r"model\.backend=openvino is a file in this machine's"),
    ):
        embed(encoder, small_collection, "document", Store(tmp_path))
