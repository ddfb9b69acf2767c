from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from embfit.loss import InfoNCE, Relations
from embfit.vectors import Vectors


def unit(rows: int, seed: int) -> torch.Tensor:
    return functional.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def related(
    positives: torch.Tensor, ignored: torch.Tensor | None = None, weights: torch.Tensor | None = None
) -> Relations:
    """Relations without ignored pairs and of equal weights, where none are given."""
    return Relations(
        positives,
        torch.zeros_like(positives) if ignored is None else ignored,
        torch.ones(len(positives)) if weights is None else weights,
    )


NONE = torch.zeros(2, 2, dtype=torch.bool)


def test_by_hand() -> None:
    queries = documents = torch.eye(2)
    loss = InfoNCE(temperature=1.0)(Vectors(queries), Vectors(documents), related(torch.eye(2, dtype=torch.bool)))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))  # -log(e / (e + 1))


def test_one_positive_each_is_cross_entropy() -> None:
    queries, documents = unit(5, 0), unit(9, 1)
    positives = torch.zeros(5, 9, dtype=torch.bool)
    positives[range(5), range(5)] = True
    loss = InfoNCE(temperature=0.05)(Vectors(queries), Vectors(documents), related(positives))
    expected = functional.cross_entropy(queries @ documents.T / 0.05, torch.arange(5))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_ignored_pairs_are_no_negatives() -> None:
    queries, documents = unit(2, 0), unit(3, 1)
    positives = torch.tensor([[True, False, False], [False, True, False]])
    ignored = torch.tensor([[False, False, True], [False, False, True]])
    loss = InfoNCE()(Vectors(queries), Vectors(documents), related(positives, ignored))
    assert loss.item() == pytest.approx(
        InfoNCE()(Vectors(queries), Vectors(documents[:2]), related(positives[:, :2], ignored[:, :2])).item()
    )


def test_positives_of_one_query_do_not_compete() -> None:
    queries, documents = unit(1, 0), unit(3, 1)
    positives = torch.tensor([[True, True, False]])
    scores = (queries @ documents.T / 0.05)[0]
    expected = [-functional.log_softmax(scores[[row, 2]], 0)[0].item() for row in (0, 1)]
    loss = InfoNCE(0.05)(Vectors(queries), Vectors(documents), related(positives))
    assert loss.item() == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_queries_that_weigh_nothing_cost_nothing() -> None:
    queries, documents = torch.eye(2), torch.eye(2)
    weightless = related(torch.eye(2, dtype=torch.bool), weights=torch.zeros(2))
    assert InfoNCE(1.0)(Vectors(queries), Vectors(documents), weightless).item() == 0


def test_weights_are_by_query() -> None:
    queries, documents = unit(2, 0), unit(2, 1)
    labels = torch.eye(2, dtype=torch.bool)
    each = [-functional.log_softmax(queries[row] @ documents.T, 0)[row].item() for row in (0, 1)]
    loss = InfoNCE(1.0)(Vectors(queries), Vectors(documents), related(labels, weights=torch.tensor([3.0, 1.0])))
    assert loss.item() == pytest.approx((3 * each[0] + each[1]) / 4, rel=1e-5)


def test_symmetric_also_classifies_queries() -> None:
    queries, documents = unit(4, 0), unit(4, 1)
    labels = torch.eye(4, dtype=torch.bool)
    scores = queries @ documents.T / 0.05
    both = [functional.cross_entropy(matrix, torch.arange(4)).item() for matrix in (scores, scores.T)]
    loss = InfoNCE(0.05, symmetric=True)(Vectors(queries), Vectors(documents), related(labels))
    assert loss.item() == pytest.approx(sum(both) / 2, rel=1e-6)


def test_symmetric_weighs_by_query_both_ways() -> None:
    queries, documents = unit(2, 0), unit(2, 1)
    scores = queries @ documents.T
    there, back = (functional.cross_entropy(matrix, torch.arange(2), reduction="none") for matrix in (scores, scores.T))
    both = related(torch.eye(2, dtype=torch.bool), weights=torch.tensor([3.0, 1.0]))
    loss = InfoNCE(1.0, symmetric=True)(Vectors(queries), Vectors(documents), both)
    assert loss.item() == pytest.approx(((3 * there[0] + there[1] + 3 * back[0] + back[1]) / 8).item(), rel=1e-5)


def test_no_negatives_gives_zero_loss_and_gradient() -> None:
    queries = unit(1, 0).requires_grad_()
    loss = InfoNCE()(Vectors(queries), Vectors(unit(1, 1)), related(torch.ones(1, 1, dtype=torch.bool)))
    loss.backward()
    assert loss.item() == 0
    assert queries.grad.abs().max().item() == 0


def test_the_temperature_is_trained_only_when_asked() -> None:
    assert list(InfoNCE(0.02).parameters()) == []
    loss = InfoNCE(0.02, learn_temperature=True)
    assert loss.temperature.item() == pytest.approx(0.02)
    loss(Vectors(unit(2, 0)), Vectors(unit(2, 1)), related(torch.eye(2, dtype=torch.bool))).backward()
    assert loss.log_excess.grad.item() != 0


def test_a_learned_temperature_stays_above_its_floor() -> None:
    loss = InfoNCE(0.02, learn_temperature=True)
    with torch.no_grad():
        loss.log_excess -= 20
    assert loss.temperature.item() == pytest.approx(0.01)
    with pytest.raises(ValueError, match=r"temperature=0.01 cannot be learnt: it stays above 0.01"):
        InfoNCE(0.01, learn_temperature=True)
    assert InfoNCE(0.005).temperature.item() == pytest.approx(0.005)


def test_a_query_without_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="every query needs a positive"):
        InfoNCE()(Vectors(unit(2, 0)), Vectors(unit(2, 1)), related(NONE))


def test_hard_negatives_count_more_by_hand() -> None:
    queries, documents = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    positives, ignored = torch.tensor([[True, False, False]]), torch.zeros(1, 3, dtype=torch.bool)
    near, far = math.exp(2 * 0.6), 1.0  # exp(hardness * cosine)
    mean = (near + far) / 2
    negatives = near / mean * math.exp(0.6) + far / mean * math.exp(0.0)
    loss = InfoNCE(1.0, hardness=2.0)(Vectors(queries), Vectors(documents), related(positives, ignored))
    assert loss.item() == pytest.approx(-math.log(math.e / (math.e + negatives)), rel=1e-5)


def test_how_much_a_hard_negative_counts_is_not_learnt() -> None:
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    documents = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    near, far = math.exp(2 * 0.6), 1.0  # exp(hardness * cosine): numbers, whatever the query becomes
    mean = (near + far) / 2
    positive, one, other = (query @ documents.T)[0].exp()
    (expected,) = torch.autograd.grad(-(positive / (positive + near / mean * one + far / mean * other)).log(), query)
    positives = torch.tensor([[True, False, False]])
    (found,) = torch.autograd.grad(
        InfoNCE(1.0, hardness=2.0)(Vectors(query), Vectors(documents), related(positives)), query
    )
    torch.testing.assert_close(found, expected)


def test_queries_and_documents_as_further_negatives() -> None:
    queries, documents = unit(3, 0), unit(4, 1)
    positives = torch.zeros(3, 4, dtype=torch.bool)
    positives[range(3), range(3)] = True
    ignored = torch.zeros_like(positives)
    ignored[0, 1] = True  # so queries 0 and 1 share document 1, and documents 0 and 1 query 0
    scores, among, beside = (
        (a @ b.T).exp() for a, b in ((queries, documents), (queries, queries), (documents, documents))
    )
    losses = []
    for row in range(3):
        negatives = sum(scores[row, d] for d in range(4) if d != row and not ignored[row, d])
        negatives += sum(among[row, q] for q in range(3) if q != row and {q, row} != {0, 1})
        negatives += sum(beside[row, d] for d in range(4) if d != row and not (row == 0 and d == 1))
        losses.append(-torch.log(scores[row, row] / (scores[row, row] + negatives)))
    loss = InfoNCE(1.0, query_query=True, document_document=True)(
        Vectors(queries), Vectors(documents), related(positives, ignored)
    )
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_one_query_alone_has_no_further_negatives() -> None:
    queries = unit(1, 0).requires_grad_()
    labels = torch.ones(1, 1, dtype=torch.bool)
    loss = InfoNCE(query_query=True, document_document=True, hardness=1.0)(
        Vectors(queries), Vectors(unit(1, 1)), related(labels)
    )
    loss.backward()
    assert loss.item() == 0
    assert queries.grad.abs().max().item() == 0


def test_words_are_added_to_the_logits() -> None:
    queries, documents = unit(2, 0), unit(3, 1)
    positives = torch.tensor([[True, False, False], [False, True, False]])
    lexical = torch.tensor([[6.0, 0.0, 2.0], [0.0, 1.0, 3.0]])
    relations = replace(related(positives), lexical=lexical)
    loss = InfoNCE(temperature=0.05, lexical=0.5)(Vectors(queries), Vectors(documents), relations)
    logits = queries @ documents.T / 0.05 + 0.5 * lexical
    assert loss.item() == pytest.approx(functional.cross_entropy(logits, torch.tensor([0, 1])).item(), rel=1e-6)
    without = InfoNCE(temperature=0.05)(Vectors(queries), Vectors(documents), relations)
    assert without.item() == pytest.approx(
        functional.cross_entropy(queries @ documents.T / 0.05, torch.tensor([0, 1])).item(), rel=1e-6
    )


def test_what_words_say_is_not_learnt_again() -> None:
    """The gradient of a logit is its share less its label: where words tell the answer, little is left to learn."""
    queries, documents = unit(1, 0).requires_grad_(), unit(3, 1)
    lexical = torch.tensor([[9.0, 0.0, 1.0]])
    relations = replace(related(torch.tensor([[True, False, False]])), lexical=lexical)

    def gradient(weight: float) -> torch.Tensor:
        loss = InfoNCE(temperature=1.0, lexical=weight)(Vectors(queries), Vectors(documents), relations)
        [found] = torch.autograd.grad(loss, queries)
        return found

    shares = (queries @ documents.T + lexical).softmax(dim=1).detach() - torch.tensor([[1.0, 0.0, 0.0]])
    torch.testing.assert_close(gradient(1.0), shares @ documents)
    assert gradient(1.0).norm() < 0.01 * gradient(0.0).norm()


def test_words_and_hardness_are_apart() -> None:
    """Negatives are weighed by their cosines, whatever their words say."""
    queries, documents = unit(1, 0), unit(3, 1)
    lexical = torch.tensor([[0.0, 4.0, 1.0]])
    relations = replace(related(torch.tensor([[True, False, False]])), lexical=lexical)
    loss = InfoNCE(temperature=0.1, hardness=2.0, lexical=1.0)(Vectors(queries), Vectors(documents), relations)
    cosines = (queries @ documents.T)[0]
    logits = cosines / 0.1 + lexical[0]
    weights = (2.0 * cosines[1:]).exp() / (2.0 * cosines[1:]).exp().mean()
    negatives = (weights * logits[1:].exp()).sum()
    expected = -torch.log(logits[0].exp() / (logits[0].exp() + negatives))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_words_that_are_missing_or_have_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="adds BM25's scores"):
        InfoNCE(lexical=1.0)(Vectors(unit(2, 0)), Vectors(unit(2, 1)), related(torch.eye(2, dtype=torch.bool)))
    with pytest.raises(ValueError, match="set those to false"):
        InfoNCE(lexical=1.0, query_query=True)
