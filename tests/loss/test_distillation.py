from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.nn import functional

from embfit.loss import KL, Distillation, InfoNCE, MarginMSE, Matryoshka, Relations
from embfit.vectors import Vectors

NAN = float("nan")
QUERIES = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
DOCUMENTS = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])  # cosines: 1, 0.6, 0 and 0, 0.8, 1
POSITIVES = torch.tensor([[True, False, False], [False, False, True]])


def taught(teacher: torch.Tensor | None, *weights: float) -> Relations:
    return Relations(POSITIVES, torch.zeros(2, 3, dtype=torch.bool), torch.tensor(weights or (1.0, 1.0)), teacher)


def test_margins_by_hand() -> None:
    teacher = torch.tensor([[9.0, 3.0, NAN], [NAN, 1.0, 2.0]])
    loss = MarginMSE(scale=10)(Vectors(QUERIES), Vectors(DOCUMENTS), taught(teacher))
    assert loss.item() == pytest.approx(((4 - 6) ** 2 + (2 - 1) ** 2) / 2)  # 10 * (1 - 0.6), 10 * (1 - 0.8)


def test_margins_are_weighted_by_query() -> None:
    teacher = torch.tensor([[9.0, 3.0, NAN], [NAN, 1.0, 2.0]])
    loss = MarginMSE(scale=10)(Vectors(QUERIES), Vectors(DOCUMENTS), taught(teacher, 3.0, 1.0))
    assert loss.item() == pytest.approx((3 * 4 + 1) / 4)


def test_margins_are_those_of_all_pairs_one_by_one() -> None:
    random = torch.Generator().manual_seed(0)
    queries, documents = (
        functional.normalize(torch.randn(rows, 4, generator=random), dim=1).requires_grad_() for rows in (5, 9)
    )
    teacher = 1000 + 8 * torch.randn(5, 9, generator=random)  # far from the cosines: squares would cancel
    teacher[torch.rand(5, 9, generator=random) < 0.2] = NAN
    positives, weights = torch.rand(5, 9, generator=random) < 0.3, torch.rand(5, generator=random)
    relations = Relations(positives, torch.zeros(5, 9, dtype=torch.bool), weights, teacher)
    loss = MarginMSE(scale=10)(Vectors(queries), Vectors(documents), relations)

    scores, errors, total = 10 * queries @ documents.T, [], 0.0
    for query, positive, negative in product(range(5), range(9), range(9)):
        wanted = teacher[query, positive] - teacher[query, negative]
        if positives[query, positive] and not positives[query, negative] and wanted.isfinite():
            errors.append(weights[query] * (scores[query, positive] - scores[query, negative] - wanted) ** 2)
            total += weights[query].item()
    expected = torch.stack(errors).sum() / total
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for side in (queries, documents):
        found, plain = (torch.autograd.grad(value, side, retain_graph=True)[0] for value in (loss, expected))
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("nothing", [NAN, float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_is_none(nothing: float) -> None:
    teacher = torch.tensor([[9.0, 3.0, nothing], [nothing, 1.0, 2.0]])
    loss = MarginMSE(scale=10)(Vectors(QUERIES), Vectors(DOCUMENTS), taught(teacher))
    assert loss.item() == pytest.approx(((4 - 6) ** 2 + (2 - 1) ** 2) / 2)


def test_divergence_by_hand() -> None:
    teacher = torch.tensor([[math.log(3.0), 0.0, NAN], [NAN, NAN, 5.0]])  # 3/4 and 1/4; one document says nothing
    loss = KL(temperature=1.0)(Vectors(QUERIES), Vectors(DOCUMENTS), taught(teacher))
    student = math.exp(1) / (math.exp(1) + math.exp(0.6))
    expected = 0.75 * math.log(0.75 / student) + 0.25 * math.log(0.25 / (1 - student))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_divergence_is_pytorchs() -> None:
    teacher = torch.tensor([[4.0, 1.0, -2.0], [0.5, 1.0, 2.0]])
    student = functional.log_softmax(QUERIES @ DOCUMENTS.T / 0.1, dim=1)
    expected = functional.kl_div(
        student, functional.log_softmax(teacher / 2, 1), log_target=True, reduction="batchmean"
    )
    loss = KL(temperature=0.1, teacher_temperature=2)(Vectors(QUERIES), Vectors(DOCUMENTS), taught(teacher))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("loss", [KL(), MarginMSE()])
def test_nothing_scored_is_nothing_learnt(loss: torch.nn.Module) -> None:
    queries = QUERIES.clone().requires_grad_()
    value = loss(Vectors(queries), Vectors(DOCUMENTS), taught(torch.full((2, 3), NAN)))
    value.backward()
    assert value.item() == 0
    assert queries.grad.abs().max().item() == 0


@pytest.mark.parametrize("loss", [KL(), MarginMSE()])
def test_partly_scored_has_finite_gradients(loss: torch.nn.Module) -> None:
    queries = QUERIES.clone().requires_grad_()
    teacher = torch.tensor([[9.0, 3.0, NAN], [NAN, NAN, NAN]])
    loss(Vectors(queries), Vectors(DOCUMENTS), taught(teacher)).backward()
    assert queries.grad.isfinite().all()
    assert queries.grad[0].abs().sum() > 0
    assert queries.grad[1].abs().sum() == 0


def test_without_a_teacher() -> None:
    with pytest.raises(ValueError, match="no teacher's scores"):
        KL()(Vectors(QUERIES), Vectors(DOCUMENTS), taught(None))


def test_blend_is_the_weighted_mean() -> None:
    teacher = torch.tensor([[9.0, 3.0, 1.0], [0.0, 1.0, 2.0]])
    arguments = (Vectors(QUERIES), Vectors(DOCUMENTS), taught(teacher))
    expected = 0.7 * InfoNCE()(*arguments) + 0.3 * KL()(*arguments)
    blend = Distillation(InfoNCE(), KL(), weight=0.3)
    assert blend(*arguments).item() == pytest.approx(expected.item(), rel=1e-6)
    assert blend.temperature.item() == pytest.approx(0.05)
    assert Matryoshka(blend, dims=[2])(*arguments).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_student_with_words_has_the_teachers_scores_already() -> None:
    lexical = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 5.0]])
    teacher = QUERIES @ DOCUMENTS.T / 0.1 + 0.5 * lexical
    relations = replace(taught(teacher), lexical=lexical)
    loss = KL(temperature=0.1, lexical=0.5)(Vectors(QUERIES), Vectors(DOCUMENTS), relations)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert KL(temperature=0.1)(Vectors(QUERIES), Vectors(DOCUMENTS), relations).item() > 0.01
