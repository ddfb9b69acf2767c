from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from embfit.loss import KL, Distillation, InfoNCE, MarginMSE, Matryoshka, Relations
from embfit.training.step import loss_parts as module
from embfit.training.step.loss_parts import BatchQueries, count_correct, loss_parts, row_blocks
from embfit.training.step.memory import measure_graph
from embfit.vectors import Vectors

WHOLE = [InfoNCE(symmetric=True), InfoNCE(query_query=True), InfoNCE(document_document=True)]
WHOLE += [Distillation(InfoNCE(), KL()), Matryoshka(InfoNCE(), dims=[4, 16], dims_per_step=1)]
PARTED = [InfoNCE(hardness=1.0), InfoNCE(learn_temperature=True), KL(), MarginMSE()]
PARTED += [Matryoshka(InfoNCE(), dims=[4, 16], weights=[1, 3])]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three queries a block."""
    monkeypatch.setattr(module, "PAIRS", 40)


def batch() -> tuple[Vectors[torch.Tensor], Vectors[torch.Tensor], Relations]:
    """Ten queries of uneven weight, thirteen documents, one to three positives each, some of it scored."""
    generator = torch.Generator().manual_seed(0)
    queries, documents = (
        Vectors(functional.normalize(torch.randn(n, 16, generator=generator), dim=-1)) for n in (10, 13)
    )
    positives = torch.rand(10, 13, generator=generator) < 0.15
    positives[range(10), range(10)] = True
    ignored = (torch.rand(10, 13, generator=generator) < 0.1) & ~positives
    teacher = torch.randn(10, 13, generator=generator)
    teacher[torch.rand(10, 13, generator=generator) < 0.4] = float("nan")
    return queries, documents, Relations(positives, ignored, torch.rand(10, generator=generator) + 0.5, teacher)


def gradients(loss: nn.Module, parted: bool) -> tuple[int, float, list[torch.Tensor]]:
    queries, documents, relations = batch()
    leaves = [queries.rows.requires_grad_(), documents.rows.requires_grad_(), *loss.parameters()]
    loss.zero_grad()
    parts = (part.loss for part in loss_parts(loss, queries, documents, relations))
    values = []
    for part in parts if parted else [loss(queries, documents, relations)]:
        part.backward()
        values.append(part.item())
    return len(values), sum(values), [leaf.grad.clone() for leaf in leaves]


@pytest.mark.parametrize("loss", PARTED, ids=lambda loss: type(loss).__name__)
def test_parts_add_up_to_the_whole(loss: nn.Module) -> None:
    count, value, found = gradients(loss, parted=True)
    _, expected, whole = gradients(loss, parted=False)
    assert count == 4
    assert value == pytest.approx(expected, rel=1e-6)
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("loss", WHOLE, ids=lambda loss: type(loss).__name__)
def test_what_needs_all_queries_has_them(loss: nn.Module) -> None:
    assert gradients(loss, parted=True)[0] == 1


class Own(nn.Module):
    """A loss that says nothing of a mass."""

    def forward(
        self, queries: Vectors[torch.Tensor], documents: Vectors[torch.Tensor], relations: Relations
    ) -> torch.Tensor:
        return (queries.rows @ documents.rows.T * relations.positives).sum()


@pytest.mark.parametrize("loss", [Own(), Matryoshka(Own(), dims=[4, 16])], ids=["alone", "within"])
def test_a_loss_of_ones_own_is_not_parted(loss: nn.Module) -> None:
    assert gradients(loss, parted=True)[0] == 1


def test_nothing_scored_is_nothing_learnt_in_parts() -> None:
    queries, documents, relations = batch()
    nothing = Relations(relations.positives, relations.ignored, relations.weights, torch.full((10, 13), float("nan")))
    assert sum(part.loss.item() for part in loss_parts(KL(), queries, documents, nothing)) == 0


def test_blocks() -> None:
    assert row_blocks(texts(10), texts(13)) == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)]
    assert row_blocks(texts(2), texts(100)) == [slice(0, 1), slice(1, 2)]
    assert row_blocks(texts(3), texts(0)) == [slice(0, 40)]
    assert row_blocks(texts(2, 0, 3, 1), texts(6)) == [slice(0, 2), slice(2, 4)]  # 3 vectors times 6 a query


def texts(first: int, *rest: int) -> Vectors[torch.Tensor]:
    """So many texts of one vector each; or, of several numbers, a text of so many vectors each."""
    counts = [first, *rest]
    return Vectors(torch.zeros(sum(counts), 1), np.cumsum([0, *counts]) if rest else None)


@pytest.mark.parametrize("loss", [*WHOLE, *PARTED, Own()], ids=lambda loss: type(loss).__name__)
def test_accuracy_is_of_the_losses_own_scores(loss: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, documents, relations = batch()
    scored: list[bool] = []
    plain = Vectors.scores
    monkeypatch.setattr(
        Vectors, "scores", lambda one, other: scored.append(one is not other is documents) or plain(one, other)
    )
    parts = list(loss_parts(loss, queries, documents, relations))
    correct = sum(part.correct.item() for part in parts)
    assert sum(scored) == len(parts)
    table = plain(queries, documents)
    negatives = ~(relations.positives | relations.ignored)
    expected = sum(bool(table[q, d] > table[q][negatives[q]].max()) for q, d in relations.positives.nonzero().tolist())
    assert correct == expected > 0


def test_positives_above_all_negatives_by_hand() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.5, 0.1], [0.0, 1.0, 5.0]])
    positives = torch.tensor([[True, True, False], [True, False, False], [True, False, False]])
    negatives = torch.tensor([[False, False, True], [False, True, False], [False, False, False]])
    assert count_correct(scores, positives, negatives).item() == 2  # 3 > 2, not 1 > 2; a tie; no negative at all


def test_a_batch_is_scored_once_and_prefixes_apart() -> None:
    queries, documents, _ = batch()
    asking = BatchQueries(queries.rows, documents=documents)
    assert asking.scores(documents) is asking.scores(documents)
    cut = asking.cut(4).scores(documents.cut(4))
    torch.testing.assert_close(cut, queries.cut(4).scores(documents.cut(4)))
    torch.testing.assert_close(asking.scores(queries), queries.scores(queries))


@pytest.mark.parametrize(
    ("loss", "bytes_of_a_pair"),
    [
        (InfoNCE(), 14),
        (InfoNCE(symmetric=True), 25),
        (InfoNCE(query_query=True, document_document=True), 26),
        (Matryoshka(InfoNCE(), dims=[4, 8, 12, 16]), 53),
    ],
    ids=["infonce", "symmetric", "both", "mrl"],
)
def test_what_a_pair_keeps_for_the_backward_pass(loss: nn.Module, bytes_of_a_pair: int) -> None:
    vectors = functional.normalize(torch.randn(600, 16), dim=-1).requires_grad_()
    relations = Relations(torch.eye(200, 400) > 0, torch.zeros(200, 400) > 0, torch.ones(200))
    with measure_graph(loss) as size:
        loss(Vectors(vectors[:200]), Vectors(vectors[200:]), relations)
    assert size.bytes / (200 * 400) == pytest.approx(bytes_of_a_pair, rel=0.05)
