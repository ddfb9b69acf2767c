"""What a fingerprint sees, how often weights are read for it, and what it makes stale."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from embfit.evaluator import Retrieval
from embfit.model import Encoder, LoRA, Pretrained, embed, fingerprint, frozen, save_encoder
from embfit.model.fingerprint import read_weights
from embfit.records import Collection
from embfit.store import Store
from tests.conftest import TEXTS
from tests.evaluator.measured import evaluate


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module]:
    """The models whose weights have been read, each time that they were."""
    found: list[torch.nn.Module] = []

    def counted(model: torch.nn.Module) -> str:
        found.append(model)
        return read_weights(model)

    monkeypatch.setattr(fingerprint, "read_weights", counted)
    return found


def step(encoder: Encoder, **settings: object) -> None:
    """Train for one step."""
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3, weight_decay=0.0, **settings)  # type: ignore[arg-type]
    tokens = encoder.tokenize(TEXTS[:2], "query")
    encoder(*tokens.padded(torch.arange(2).numpy(), 0))[:, 0].sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def no_grad(encoder: Encoder) -> None:
    with torch.no_grad():
        encoder.backbone.embeddings.word_embeddings.weight[7, 3] += 1e-3


def load(encoder: Encoder) -> None:
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    state["backbone.embeddings.LayerNorm.bias"] += 1
    encoder.load_state_dict(state)


def assign(encoder: Encoder) -> None:
    encoder.load_state_dict({name: tensor + 1 for name, tensor in encoder.state_dict().items()}, assign=True)


def swap_rows(encoder: Encoder) -> None:
    weight = encoder.backbone.embeddings.word_embeddings.weight.data
    weight[[7, 8]] = weight[[8, 7]]


CHANGES: list[Callable[[Encoder], object]] = [
    step,
    lambda encoder: step(encoder, fused=True),  # leaves PyTorch's version counters as they are
    no_grad,
    load,
    assign,
    swap_rows,
    lambda encoder: encoder.backbone.embeddings.LayerNorm.bias.data.add_(1e-6),
    lambda encoder: encoder.backbone.embeddings.LayerNorm.bias.detach().numpy().fill(1e-6),
    lambda encoder: encoder.to(torch.float64),
]
NAMES = ["step", "fused step", "no_grad", "load", "assign", "swapped rows", "data", "numpy", "dtype"]


@pytest.mark.parametrize("change", CHANGES, ids=NAMES)
def test_the_fingerprint_sees_every_change_of_weights(tiny_encoder: Encoder, change: Callable[..., object]) -> None:
    before = tiny_encoder.fingerprint("query")
    assert tiny_encoder.fingerprint("query") == before
    change(tiny_encoder)
    assert tiny_encoder.fingerprint("query") != before


@pytest.mark.parametrize("change", [no_grad, load, assign, CHANGES[-1]], ids=["no_grad", "load", "assign", "dtype"])
def test_frozen_weights_that_are_changed_all_the_same_are_noticed(
    tiny_encoder: Encoder, change: Callable[[Encoder], object]
) -> None:
    with frozen(tiny_encoder):
        before = tiny_encoder.fingerprint("query")
        change(tiny_encoder)
        after = tiny_encoder.fingerprint("query")
    assert before != after == tiny_encoder.fingerprint("query")


def test_frozen_weights_are_forgotten_behind_the_outermost_context(
    tiny_encoder: Encoder, read: list[torch.nn.Module]
) -> None:
    with frozen(tiny_encoder), frozen(tiny_encoder):
        before = tiny_encoder.fingerprint("query")
        assert tiny_encoder.fingerprint("document") == before  # the prompts are equal
    assert len(read) == 1
    step(tiny_encoder, fused=True)
    assert tiny_encoder.fingerprint("query") != before
    assert len(read) == 2


def test_an_error_ends_the_context(tiny_encoder: Encoder, read: list[torch.nn.Module]) -> None:
    with pytest.raises(KeyError), frozen(tiny_encoder):
        raise KeyError
    tiny_encoder.fingerprint("query")
    tiny_encoder.fingerprint("query")
    assert len(read) == 2


def test_a_merged_adapter_is_seen(tiny_encoder: Encoder, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    save_encoder(tiny_encoder, tmp_path / "model")
    model = Pretrained(str(tmp_path / "model"), precision="fp32", lora=LoRA(rank=2))
    encoder = model.load("cpu")
    seen = [encoder.fingerprint("query")]
    with model.trainable(encoder):
        seen.append(encoder.fingerprint("query"))
        for name, weight in encoder.named_parameters():
            if "lora_B" in name:
                weight.data.fill_(0.1)
        seen.append(encoder.fingerprint("query"))
    seen.append(encoder.fingerprint("query"))
    assert seen[0] == seen[1]  # an adapter that adds nothing yet
    assert len({*seen}) == 3


def test_equal_models_have_equal_fingerprints(tiny_encoder: Encoder) -> None:
    assert copy.deepcopy(tiny_encoder).fingerprint("query") == tiny_encoder.fingerprint("query")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_device_is_no_part_of_it(tiny_encoder: Encoder) -> None:
    before = tiny_encoder.fingerprint("query")
    with frozen(tiny_encoder):
        assert tiny_encoder.to("cuda").fingerprint("query") == before


def test_one_evaluation_reads_the_weights_once(
    tiny_encoder: Encoder, small_collection: Collection, store: Store, read: list[torch.nn.Module]
) -> None:
    evaluator = Retrieval(dims=(8, 16, 24), funnel=(5,), resamples=10)
    evaluate(evaluator, tiny_encoder, small_collection, store)
    assert read == [tiny_encoder]


def test_another_query_prompt_leaves_the_documents_vectors(
    make_encoder: Callable[..., Encoder], small_collection: Collection, tmp_path: Path
) -> None:
    for encoder in (make_encoder(), make_encoder(query_prompt="the heart ")):
        store = Store(tmp_path)
        for kind in ("query", "document"):
            embed(encoder, small_collection, kind, store)
    assert (store.built, store.reused) == (["tokens", "embeddings"], ["embeddings"])


def test_an_adapter_that_adds_nothing_yet_leaves_the_model_its_base(make_encoder, tmp_path):
    pytest.importorskip("peft")
    save_encoder(make_encoder(), tmp_path / "model")
    base = Pretrained(str(tmp_path / "model"), precision="fp32").load("cpu")
    model = Pretrained(str(tmp_path / "model"), precision="fp32", lora=LoRA(rank=2))
    encoder = model.load("cpu")
    with model.trainable(encoder):
        assert encoder.fingerprint("document") == base.fingerprint("document")
        assert (encoder.encode(["a fever"], "query") == base.encode(["a fever"], "query")).all()
        for name, weight in encoder.named_parameters():
            if "lora_B" in name:
                weight.data.fill_(0.1)
                break
        assert encoder.fingerprint("document") != base.fingerprint("document")
