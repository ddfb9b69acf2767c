"""`Vectors`: one vector a text is the plain product, several are mean MaxSim, equal to a loop written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embfit.vectors import Vectors, unit_length

COUNTS_Q, COUNTS_D = [2, 0, 3, 1], [1, 4, 0, 2, 2]


def ragged(counts: list[int], seed: int) -> Vectors[np.ndarray]:
    rows = np.random.default_rng(seed).normal(size=(sum(counts), 8)).astype(np.float32)
    return Vectors(rows, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def by_hand(queries: Vectors[np.ndarray], documents: Vectors[np.ndarray]) -> np.ndarray:
    found = np.zeros((len(queries), len(documents)), np.float32)
    for q in range(len(queries)):
        for d in range(len(documents)):
            ours, theirs = queries.part(q, q + 1).rows, documents.part(d, d + 1).rows
            best = [max((float(a @ b) for b in theirs), default=-np.inf) for a in ours]
            found[q, d] = sum(best) / len(best) if best else 0.0
    return found


def tensors(vectors: Vectors[np.ndarray]) -> Vectors[torch.Tensor]:
    return Vectors(torch.from_numpy(vectors.rows).clone().requires_grad_(), vectors.starts)


def test_one_vector_each_is_the_inner_product() -> None:
    queries, documents = Vectors(np.array([[1.0, 2.0]])), Vectors(np.array([[3.0, 4.0], [0.0, -1.0]]))
    assert queries.scores(documents).tolist() == [[11.0, -2.0]]
    assert queries.single
    assert queries.counts.tolist() == [1]


def test_several_vectors_are_mean_maxsim() -> None:
    queries, documents = ragged(COUNTS_Q, 0), ragged(COUNTS_D, 1)
    np.testing.assert_allclose(queries.scores(documents), by_hand(queries, documents), rtol=1e-5)
    found = tensors(queries).scores(tensors(documents)).detach().numpy()
    np.testing.assert_allclose(found, by_hand(queries, documents), rtol=1e-5)


def test_gradients_reach_the_highest_pairs_alone() -> None:
    queries, documents = Vectors(torch.eye(2, 8, requires_grad=True), np.array([0, 2])), ragged([3], 2)
    there = tensors(documents)
    queries.scores(there).sum().backward()
    expected = np.zeros_like(documents.rows)
    for place in (0, 1):
        expected[documents.rows[:, place].argmax(), place] += 0.5  # the mean over two query vectors
    np.testing.assert_allclose(there.rows.grad, expected)


@pytest.mark.parametrize("make", [lambda vectors: vectors, tensors], ids=["numpy", "torch"])
def test_take_and_part(make) -> None:
    vectors = make(ragged(COUNTS_D, 3))
    assert vectors.take([4, 0, 2, 4]).counts.tolist() == [2, 1, 0, 2]
    assert vectors.take([1]).rows.tolist() == vectors.part(1, 2).rows.tolist()
    assert vectors.part(1, 4).counts.tolist() == [4, 0, 2]
    assert len(vectors.part(0, 0)) == 0
    single = make(Vectors(ragged(COUNTS_D, 3).rows))
    assert single.take([3, 1]).rows.tolist() == [single.rows[3].tolist(), single.rows[1].tolist()]


def test_cut_slices_and_renormalises() -> None:
    vectors = Vectors(np.array([[3.0, 4.0, 9.0], [0.0, 0.0, 1.0]], np.float32))
    cut = vectors.cut(2)
    assert (cut.width, vectors.cut(3)) == (2, vectors)
    np.testing.assert_allclose(cut.flat(), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(cut.take([0]).flat(), [[0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(Vectors(torch.tensor([[3.0, 4.0, 9.0]])).cut(2).flat(), [[0.6, 0.8]], rtol=1e-6)
    with pytest.raises(ValueError, match="dim=4 is not between 1 and the vectors' 3 dimensions"):
        vectors.cut(4)


def test_normalised_vectors_are_of_length_one_at_any_width() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(Vectors(rows).normalised().flat(), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(Vectors(torch.from_numpy(rows)).normalised().flat(), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(Vectors(rows).normalised().cut(1).flat(), [[1.0], [0.0]], rtol=1e-6)


def test_chunks_hold_whole_texts() -> None:
    rows = np.arange(9, dtype=np.float32)[:, None]
    assert [(start, len(part)) for start, part in Vectors(rows).chunks(4)] == [(0, 4), (4, 4), (8, 1)]
    several = Vectors(rows, np.array([0, 2, 2, 7, 8, 9]))
    found = [(start, part.counts.tolist()) for start, part in several.chunks(3)]
    assert found == [(0, [2, 0]), (2, [5]), (3, [1, 1])]  # a text of five vectors is a part of its own
    assert [part.flat()[0, 0] for _, part in several.chunks(3)] == [0, 2, 7]
    assert list(Vectors(rows[:0]).chunks(3)) == []


def test_unit_length_leaves_zero_alone() -> None:
    assert unit_length(np.array([[0.0, 0.0], [0.0, 2.0]])).tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_a_text_has_the_mean_of_its_vectors() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 0.9], [0.6, 0.8], [1.0, 0.0]])
    assert Vectors(rows, np.array([0, 1, 3, 4])).means() == pytest.approx(np.array([[1, 0], [0.3, 0.85], [1, 0]]))
    assert Vectors(rows).means() is rows
