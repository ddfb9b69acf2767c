from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from embfit.loss import KL, Distillation, InfoNCE, MarginMSE, Matryoshka, Relations
from embfit.training.step import row_blocks as module
from embfit.training.step.memory import measure_graph
from embfit.training.step.row_blocks import loss_parts, row_blocks

WHOLE = [InfoNCE(symmetric=True), InfoNCE(query_query=True), InfoNCE(document_document=True)]
WHOLE += [Distillation(InfoNCE(), KL()), Matryoshka(InfoNCE(), dims=[4, 16], dims_per_step=1)]
PARTED = [InfoNCE(hardness=1.0), InfoNCE(learn_temperature=True), KL(), MarginMSE()]
PARTED += [Matryoshka(InfoNCE(), dims=[4, 16], weights=[1, 3])]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three queries a block."""
    monkeypatch.setattr(module, "PAIRS", 40)


def batch() -> tuple[torch.Tensor, torch.Tensor, Relations]:
    """Ten queries of uneven weight, thirteen documents, one to three positives each, some of it scored."""
    generator = torch.Generator().manual_seed(0)
    queries, documents = (functional.normalize(torch.randn(n, 16, generator=generator), dim=-1) for n in (10, 13))
    positives = torch.rand(10, 13, generator=generator) < 0.15
    positives[range(10), range(10)] = True
    ignored = (torch.rand(10, 13, generator=generator) < 0.1) & ~positives
    teacher = torch.randn(10, 13, generator=generator)
    teacher[torch.rand(10, 13, generator=generator) < 0.4] = float("nan")
    return queries, documents, Relations(positives, ignored, torch.rand(10, generator=generator) + 0.5, teacher)


def gradients(loss: nn.Module, parted: bool) -> tuple[int, float, list[torch.Tensor]]:
    queries, documents, relations = batch()
    leaves = [queries.requires_grad_(), documents.requires_grad_(), *loss.parameters()]
    loss.zero_grad()
    parts = loss_parts(loss, queries, documents, relations) if parted else [loss(queries, documents, relations)]
    values = []
    for part in parts:
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

    def forward(self, queries: torch.Tensor, documents: torch.Tensor, relations: Relations) -> torch.Tensor:
        return (queries @ documents.T * relations.positives).sum()


@pytest.mark.parametrize("loss", [Own(), Matryoshka(Own(), dims=[4, 16])], ids=["alone", "within"])
def test_a_loss_of_ones_own_is_not_parted(loss: nn.Module) -> None:
    assert gradients(loss, parted=True)[0] == 1


def test_nothing_scored_is_nothing_learnt_in_parts() -> None:
    queries, documents, relations = batch()
    nothing = Relations(relations.positives, relations.ignored, relations.weights, torch.full((10, 13), float("nan")))
    assert sum(part.item() for part in loss_parts(KL(), queries, documents, nothing)) == 0


def test_blocks() -> None:
    assert row_blocks(10, 13) == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)]
    assert row_blocks(2, 100) == [slice(0, 1), slice(1, 2)]
    assert row_blocks(3, 0) == [slice(0, 40)]


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
        loss(vectors[:200], vectors[200:], relations)
    assert size.bytes / (200 * 400) == pytest.approx(bytes_of_a_pair, rel=0.05)
