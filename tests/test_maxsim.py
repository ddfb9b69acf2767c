"""The sparse backward pass of MaxSim against automatic differentiation through the whole table of products."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from embfit import maxsim
from embfit.maxsim import highest_products
from embfit.ragged import offsets_of
from embfit.vectors import Vectors

QUERIES, DOCUMENTS = [3, 1, 4, 2], [5, 2, 0, 7, 1, 2]
BLOCKS = [1, 7, 30, 10_000]


def vectors(counts: list[int], seed: int, dtype: torch.dtype = torch.float64) -> Vectors[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(sum(counts), 6, generator=generator, dtype=dtype)
    return Vectors(rows.requires_grad_(), offsets_of(counts))


def dense(queries: Tensor, documents: Tensor, starts: np.ndarray) -> Tensor:
    """The highest products by the whole table, which PyTorch differentiates."""
    table = queries @ documents.T  # [Vq, Vd]
    parts = [table[:, start:stop] for start, stop in pairwise(starts)]
    empty = torch.full((len(queries),), float("-inf"), dtype=table.dtype)
    return torch.stack([part.max(dim=1).values if part.shape[1] else empty for part in parts], dim=1)


@pytest.mark.parametrize("rows", [2, 2048])
@pytest.mark.parametrize("block", BLOCKS)
def test_values_and_gradients_are_those_of_the_whole_table(
    block: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maxsim, "ROWS", rows)
    queries, documents = vectors(QUERIES, 0), vectors(DOCUMENTS, 1)
    assert documents.starts is not None
    weights = torch.randn(10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weights[:, 2] = 0.0  # the document without vectors
    results = []
    for compute in (lambda *of: highest_products(*of, block=block), dense):
        queries.rows.grad = documents.rows.grad = None
        best = compute(queries.rows, documents.rows, documents.starts)
        (best.masked_fill(best.isinf(), 0.0) * weights).sum().backward()
        results.append((best.detach(), queries.rows.grad, documents.rows.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("block", BLOCKS)
def test_gradients_are_those_of_small_steps(block: int) -> None:
    queries, documents = vectors(QUERIES, 0), vectors([5, 2, 7, 1], 1)
    assert documents.starts is not None
    starts = documents.starts
    assert torch.autograd.gradcheck(lambda q, d: highest_products(q, d, starts, block), (queries.rows, documents.rows))


@pytest.mark.parametrize("block", BLOCKS)
def test_of_equal_products_the_first_vector_counts(block: int) -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    documents = torch.tensor([[0.0, 3.0], [2.0, 0.0], [2.0, 1.0], [2.0, 3.0], [5.0, 5.0]], requires_grad=True)
    highest_products(queries, documents, np.array([0, 4, 5]), block)[:, 0].sum().backward()
    assert documents.grad is not None
    assert documents.grad.tolist() == [[0, 1], [1, 0], [0, 0], [0, 0], [0, 0]]
    assert queries.grad is not None
    assert queries.grad.tolist() == [[2, 0], [0, 3]]


def test_a_document_without_vectors_gives_no_gradient_whatever_its_own_is() -> None:
    queries, documents = vectors([2], 0), vectors([0, 3], 1)
    assert documents.starts is not None
    best = highest_products(queries.rows, documents.rows, documents.starts)
    best.backward(torch.tensor([[float("nan"), 1.0]] * 2, dtype=torch.float64))
    assert documents.rows.grad is not None
    assert queries.rows.grad is not None
    assert documents.rows.grad.isfinite().all()
    assert queries.rows.grad.isfinite().all()
    nothing = highest_products(queries.rows, documents.rows[:0], np.array([0, 0]))
    assert nothing.isneginf().all()
    nothing.sum().backward()
    nobody = highest_products(queries.rows[:0], documents.rows, documents.starts)
    assert nobody.shape == (0, 2)
    nobody.sum().backward()


def test_no_gradient_is_computed_for_a_side_that_needs_none() -> None:
    queries, documents = vectors(QUERIES, 0), vectors(DOCUMENTS, 1)
    assert documents.starts is not None
    fixed = documents.rows.detach()
    best = highest_products(queries.rows, fixed, documents.starts)
    best[:, [0, 1]].sum().backward()
    assert queries.rows.grad is not None
    assert fixed.grad is None
    with torch.no_grad():
        assert not highest_products(queries.rows, fixed, documents.starts).requires_grad


def test_scores_do_not_depend_on_batch_mates_or_their_order() -> None:
    queries, documents = vectors(QUERIES, 0), vectors(DOCUMENTS, 1)
    whole = queries.scores(documents).detach()
    order = np.array([4, 0, 2, 5, 3, 1])
    torch.testing.assert_close(queries.scores(documents.take(order)).detach(), whole[:, order])
    for document in range(6):
        alone = queries.scores(documents.part(document, document + 1)).detach()
        torch.testing.assert_close(alone[:, 0], whole[:, document])
    torch.testing.assert_close(queries.part(1, 3).scores(documents).detach(), whole[1:3])


def test_what_is_kept_for_the_backward_pass_is_a_number_for_each_query_vector_and_document() -> None:
    queries, documents = vectors([32] * 4, 0, torch.float32), vectors([180] * 8, 1, torch.float32)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        queries.scores(documents)
    inputs = queries.rows.nbytes + documents.rows.nbytes
    assert sum(kept) - inputs < 128 * 8 * 12  # 128 query vectors, 8 documents; a table has 180 products for each
