"""Exact search equals a naive loop, ties and chunk borders included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embfit.index import ExactIndex, exact
from embfit.index.inner_products import pair_scores
from embfit.vectors import Vectors


def search(queries: np.ndarray, documents: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    return ExactIndex(Vectors(documents)).search(Vectors(queries), k)


def naive(queries: np.ndarray, documents: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = np.zeros((len(queries), k))
    rows = np.zeros((len(queries), k), int)
    for i, query in enumerate(queries):
        ranked = sorted((-float(query.astype(float) @ document), row) for row, document in enumerate(documents))
        scores[i] = [-score for score, _ in ranked[:k]]
        rows[i] = [row for _, row in ranked[:k]]
    return scores, rows


class Watched(np.ndarray):
    """A matrix that counts how many rows are read at once, and how often each is."""

    reads: np.ndarray
    most: list[int]

    @classmethod
    def of(cls, matrix: np.ndarray) -> Watched:
        made = matrix.view(cls)
        made.reads, made.most = np.zeros(len(matrix), int), []
        return made

    def __getitem__(self, rows: slice) -> np.ndarray:  # type: ignore[override]
        found = self.view(np.ndarray)[rows]
        self.most.append(len(found))
        self.reads[rows] += 1
        return found


def test_documents_are_read_once_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "CHUNK", 64)
    matrix = np.random.default_rng(0).standard_normal((300, 8), np.float32)
    documents = Watched.of(matrix)
    asked = np.random.default_rng(1).standard_normal((40, 8), np.float32)
    np.testing.assert_array_equal(search(asked, documents, 5)[1], naive(asked, matrix, 5)[1])
    assert max(documents.most) == 64
    assert (documents.reads == 1).all()


def test_vectors_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "CHUNK", 64)
    checked: list[int] = []

    def lengths(vectors: Vectors, name: str, start: int) -> np.ndarray:
        checked.extend([start] if name == "documents" else [])
        return np.linalg.norm(vectors.rows, axis=1)

    monkeypatch.setattr(exact, "longest_vectors", lengths)
    index = ExactIndex(Vectors(np.random.default_rng(0).standard_normal((150, 8), np.float32)))
    for _ in range(3):
        index.search(Vectors(np.ones((2, 8), np.float32)), 5)
    assert checked == [0, 64, 128]


def several(counts: list[int], width: int = 8, seed: int = 0) -> Vectors:
    """Texts of so many random vectors each."""
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Vectors(np.random.default_rng(seed).standard_normal((starts[-1], width), np.float32), starts)


def max_sim(queries: Vectors, documents: Vectors) -> np.ndarray:
    """Mean over a query's vectors of the best inner product with a document's, in a plain loop."""
    parts = [[one.part(i, i + 1).flat().astype(float) for i in range(len(one))] for one in (queries, documents)]
    return np.array([[np.mean([max(v @ w for w in doc) for v in query]) for doc in parts[1]] for query in parts[0]])


@pytest.mark.parametrize("chunk", [7, 32_768])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_several_vectors_a_text_equal_a_plain_loop(monkeypatch: pytest.MonkeyPatch, chunk: int, k: int) -> None:
    monkeypatch.setattr(exact, "CHUNK", chunk)
    monkeypatch.setattr(exact, "SCORES", 50)  # several blocks of queries
    queries, documents = several([3, 1, 4, 2, 2], seed=1), several([1 + row % 5 for row in range(40)])
    expected = max_sim(queries, documents)
    index = ExactIndex(documents)
    scores, rows = index.search(queries, k)
    np.testing.assert_array_equal(rows, np.argsort(-expected, axis=1)[:, :k])
    np.testing.assert_allclose(scores, np.take_along_axis(expected, rows, axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(index.score(queries, rows), scores)


def test_copies_of_several_vectors_score_equally_and_come_in_row_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "CHUNK", 100)
    documents = several([3] * 200, width=768)
    for copy in (1, 90, 199):
        documents.rows[3 * copy : 3 * copy + 3] = documents.rows[15:18]  # those of document 5
    queries = Vectors(documents.rows[15:17] + 0.02, np.array([0, 2]))
    scores, rows = ExactIndex(documents).search(queries, 4)
    assert rows.tolist() == [[1, 5, 90, 199]]
    assert (scores == scores[0, 0]).all()


def test_a_document_without_vectors_is_not_found() -> None:
    documents = Vectors(np.array([[1, 0], [0, 1]], np.float32), np.array([0, 1, 1, 2]))
    scores, rows = ExactIndex(documents).search(Vectors(np.array([[0.5, 1]], np.float32)), 3)
    assert rows.tolist() == [[2, 0, -1]]
    assert scores.tolist() == [[1, 0.5, 0]]


def test_cut_vectors_are_renormalised_as_they_are_read() -> None:
    matrix = np.random.default_rng(0).standard_normal((300, 20), np.float32)
    cut = matrix[:, :5] / np.linalg.norm(matrix[:, :5], axis=1, keepdims=True)
    documents = Vectors(matrix)
    np.testing.assert_allclose(documents.cut(5).part(10, 20).flat(), cut[10:20], rtol=1e-6)
    scores, rows = ExactIndex(documents.cut(5)).search(documents.part(0, 3).cut(5), 4)
    expected = cut[:3] @ cut.T
    np.testing.assert_array_equal(rows, np.argsort(-expected, axis=1)[:, :4])
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :4], rtol=1e-5)


def test_chosen_pairs_are_scored_wherever_the_vectors_are(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).standard_normal((50, 8), np.float32)
    np.save(tmp_path / "half.npy", matrix.astype(np.float16))
    half = np.load(tmp_path / "half.npy", mmap_mode="r")
    rows = np.array([[3, 49, -1], [0, -1, -1]])
    queries = Vectors(matrix[:2] + 1)
    for documents in (Vectors(matrix), Vectors(half), Vectors(matrix).cut(4)):
        asked = queries.cut(documents.width)
        expected = (asked.flat() @ documents.flat().astype(np.float32).T)[[[0, 0, 0], [1, 1, 1]], rows]
        expected[rows < 0] = -np.inf
        np.testing.assert_allclose(pair_scores(asked, documents, rows), expected, rtol=1e-5)


def test_a_worked_example() -> None:
    documents = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)
    scores, rows = search(np.array([[1, 0], [0, 1]], np.float32), documents, k=3)
    assert rows.tolist() == [[0, 1, 2], [2, 1, 0]]
    np.testing.assert_allclose(scores, [[1, 0.6, 0], [1, 0.8, 0]], atol=1e-7)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("queries", [1, 25])  # faiss takes another path from 20 queries on
@pytest.mark.parametrize("k", [1, 7, 150, 900])  # ... and from 100 results on
def test_equals_a_naive_loop_across_chunks(monkeypatch: pytest.MonkeyPatch, queries: int, k: int) -> None:
    monkeypatch.setattr(exact, "CHUNK", 256)
    random = np.random.default_rng(k)
    documents = random.standard_normal((900, 16), np.float32)
    asked = random.standard_normal((queries, 16), np.float32)
    scores, rows = search(asked, documents, k)
    wanted_scores, wanted_rows = naive(asked, documents, k)
    np.testing.assert_array_equal(rows, wanted_rows)
    np.testing.assert_allclose(scores, wanted_scores, atol=1e-5)


@pytest.mark.parametrize("queries", [1, 25])
@pytest.mark.parametrize("k", [1, 3, 20, 150])
@pytest.mark.parametrize("chunk", [64, 1000])
def test_ties_go_to_the_lowest_rows(monkeypatch: pytest.MonkeyPatch, queries: int, k: int, chunk: int) -> None:
    monkeypatch.setattr(exact, "CHUNK", chunk)
    monkeypatch.setattr(exact, "SCORES", 300)  # several groups of tied queries
    random = np.random.default_rng(k)
    documents = random.integers(-1, 2, (400, 4)).astype(np.float32)  # whole numbers: every tie is exact
    asked = random.integers(-1, 2, (queries, 4)).astype(np.float32)
    scores, rows = search(asked, documents, k)
    wanted_scores, wanted_rows = naive(asked, documents, k)
    np.testing.assert_array_equal(rows, wanted_rows)
    np.testing.assert_array_equal(scores, wanted_scores)


def test_equal_documents_come_in_row_order() -> None:
    _, rows = search(np.ones((1, 4), np.float32), np.ones((5000, 4), np.float32), k=100)
    assert rows[0].tolist() == list(range(100))


def copies(width: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries near a document of which there are three copies, at places that matrix products round otherwise."""
    random = np.random.default_rng(0)
    documents = random.standard_normal((count, width), np.float32)
    documents[[1, count // 2, count - 1]] = documents[5]
    asked = documents[5] + 0.02 * random.standard_normal((300, width), np.float32)
    return asked, documents


@pytest.mark.parametrize("chunk", [300, 32_768])
def test_copies_score_equally_and_come_in_row_order(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(exact, "CHUNK", chunk)
    asked, documents = copies(768, 1003)
    scores, rows = search(asked, documents, 10)
    assert (rows[:, :4] == [1, 5, 501, 1002]).all()
    assert (scores[:, :4] == scores[:, :1]).all()


@pytest.mark.parametrize("k", [2, 10])
def test_what_is_found_does_not_depend_on_the_other_queries(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    asked, documents = copies(768, 1003)
    scores, rows = search(asked, documents, k)
    monkeypatch.setattr(exact, "CHUNK", 128)
    for some in (slice(0, 1), slice(7, 47), slice(100, 300)):
        few_scores, few_rows = search(asked[some], documents, k)
        np.testing.assert_array_equal(few_rows, rows[some])
        np.testing.assert_array_equal(few_scores, scores[some])


def test_ties_beyond_the_spare_candidates_are_found() -> None:
    """Of fifty copies three are wanted: which ones faiss fetches is by the rounding of its products."""
    asked, documents = copies(768, 1003)
    documents[3::20] = documents[5]
    wanted = np.flatnonzero((documents == documents[5]).all(axis=1))[:3]
    assert (search(asked, documents, 3)[1] == wanted).all()


def test_reads_a_memory_mapped_matrix_of_half_precision(tmp_path: Path) -> None:
    documents = np.lib.format.open_memmap(tmp_path / "documents.npy", "w+", np.float16, (3, 2))
    documents[:] = [[0.5, 0], [1, 0], [0.25, 1]]
    scores, rows = search(np.array([[1.0, 0.0]]), documents, k=3)
    assert rows.tolist() == [[1, 0, 2]]
    assert scores.tolist() == [[1, 0.5, 0.25]]


def test_no_queries_give_no_results() -> None:
    scores, rows = search(np.empty((0, 4), np.float32), np.ones((3, 4), np.float32), k=2)
    assert scores.shape == rows.shape == (0, 2)


def test_what_cannot_be_searched_is_said() -> None:
    documents = np.ones((12, 4), np.float32)
    with pytest.raises(ValueError, match="k=50 is not between 1 and the index's 12 documents"):
        search(documents, documents, k=50)
    with pytest.raises(ValueError, match="k=0"):
        search(documents, documents, k=0)
    with pytest.raises(ValueError, match="differ in width"):
        search(documents[:, :3], documents, k=1)
    documents[7, 2] = np.nan
    with pytest.raises(ValueError, match="row 7 of the documents is not finite"):
        search(np.ones((1, 4)), documents, k=1)
    with pytest.raises(ValueError, match="row 3 of the documents is not finite"):
        ExactIndex(Vectors(documents, np.arange(0, 14, 2))).search(Vectors(np.ones((1, 4), np.float32)), k=1)
    with pytest.raises(ValueError, match="row 0 of the queries is not finite"):
        search(documents[7:], documents[:7], k=1)


@pytest.mark.parametrize("first", ["torch", "faiss"])
def test_lives_with_torch_in_either_order_of_import(first: str) -> None:
    """Both bring an OpenMP runtime of their own: neither may crash, stall or lose its threads."""
    second = {"torch": "faiss", "faiss": "torch"}[first]
    program = f"""
import {first}, {second}
assert torch.get_num_threads() == faiss.omp_get_max_threads()
from embfit.index import ExactIndex
from embfit.vectors import Vectors
vectors = torch.nn.functional.normalize(torch.randn(2000, 64))
for _ in range(5):
    nearest = (vectors @ vectors.T).argmax(dim=1)
    rows = ExactIndex(Vectors(vectors.numpy())).search(Vectors(vectors.numpy()), 10)[1]
print(int((torch.from_numpy(rows[:, 0]) == nearest).sum()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "2000\n"
