"""The memory of a step, told from a configuration, is what the step takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import BertConfig, BertModel, MistralConfig, Qwen3Config

from embfit.app import main
from embfit.errors import UserError
from embfit.loss import KL, Distillation, InfoNCE, Matryoshka
from embfit.model import LateInteraction, LoRA, Pretrained, save_encoder
from embfit.model.encoder import Encoder
from embfit.model.query_adapter import QueryAdapterSettings
from embfit.training import Training
from embfit.training.memory_estimate import MemoryEstimate, _backbone, estimate_memory
from embfit.training.ranks.sharding import shard_model
from embfit.training.ranks.units import shard_size, units_of, weights_of
from embfit.training.step.backbone import gradient_checkpointing
from embfit.training.step.memory import measure_graph

TRAINING = Training(batch_size=8, precision="fp32", token_budget=128)


@pytest.fixture
def folder(tiny_encoder: Encoder, tmp_path: Path) -> Path:
    """The two layers in a folder."""
    save_encoder(tiny_encoder, tmp_path / "model")
    return tmp_path / "model"


def estimate(folder: Path, training: Training = TRAINING, ranks: int = 1, **changes: object) -> MemoryEstimate:
    return estimate_memory(replace(Pretrained(str(folder)), **changes), training, InfoNCE(), ranks, negatives=2)


def test_weights_gradients_and_moments_are_those_of_a_step(folder: Path) -> None:
    found = estimate(folder)
    encoder = Pretrained(str(folder)).load("cpu")
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, fused=True)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    moments = [state[name].nbytes for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert found.weights == sum(weight.nbytes for weight in weights)
    assert found.gradients == sum(weight.grad.nbytes for weight in weights)  # type: ignore[union-attr]
    assert found.moments == sum(moments)
    assert found.trained == found.parameters == sum(weight.numel() for weight in weights)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_micro_batchs_graph_is_the_measured_one(folder: Path, precision: str) -> None:
    found = estimate(folder, replace(TRAINING, precision=precision))
    encoder = Pretrained(str(folder)).load("cpu")
    assert (found.texts, found.length) == (4, 32)
    ids, mask = torch.ones(4, 32, dtype=torch.int64), torch.ones(4, 32, dtype=torch.int64)
    mask[0, -1] = 0  # some padding, so that attention has a mask
    measured = []
    for checkpointing in (False, True):
        with measure_graph(encoder) as size:
            if checkpointing:
                with gradient_checkpointing(encoder.backbone):
                    encoder.hidden_states(ids, mask, precision == "bf16")
            else:
                encoder.hidden_states(ids, mask, precision == "bf16")
        measured.append(size.bytes)
    graph, inputs = measured
    assert found.graph == pytest.approx(graph, rel=0.02)
    assert found.checkpointed == pytest.approx(inputs + (graph - inputs) / 2, rel=0.02)
    assert found.checkpointed < 0.8 * found.graph


def test_an_adapter_trains_little_and_freezing_keeps_less(folder: Path) -> None:
    pytest.importorskip("peft")
    whole, adapter = estimate(folder), estimate(folder, dtype="bfloat16", lora=LoRA(rank=4))
    added = 2 * 4 * ((32 + 32) * 4 + (32 + 64) * 2)  # two layers: four squares, and the two of the feed-forward
    assert adapter.trained == added
    assert adapter.weights == 2 * whole.parameters + 4 * added
    assert adapter.gradients == 4 * added
    assert estimate(folder, freeze_layers=1).graph < 0.7 * whole.graph


def test_vectors_and_relations_grow_with_the_ranks(folder: Path) -> None:
    one, four = estimate(folder), estimate(folder, ranks=4)
    assert one.vectors == 3 * (8 + 24) * 32 * 4
    assert four.vectors == 4 * one.vectors
    assert (one.relations, four.relations) == (8 * 24 * 2, 32 * 96 * 2)
    assert (one.exchange, four.exchange) == (0, 4 * one.trained)
    assert four.loss == pytest.approx(16 * one.loss, rel=0.2)
    assert one.least == one.weights + one.gradients + one.moments + one.vectors + one.relations + one.graph
    several = estimate_memory(Pretrained(str(folder)), TRAINING, Matryoshka(InfoNCE(), [8, 16, 32]), 1, 2)
    assert several.loss > 2 * one.loss


def test_a_teachers_scores_are_counted(folder: Path) -> None:
    model, loss = Pretrained(str(folder)), Distillation(InfoNCE(), KL())
    found = estimate_memory(model, TRAINING, loss, 1, 2)
    assert found.relations == 8 * 24 * (2 + 4)
    assert loss.temperature.device.type == "cpu"  # the caller's loss stays as it is


def test_a_micro_batch_has_no_more_texts_than_the_batch(folder: Path) -> None:
    found = estimate(folder, replace(TRAINING, batch_size=2, token_budget=16_384))
    assert found.texts == 2 + 2 * 3
    assert estimate(folder, replace(TRAINING, batch_size=2, token_budget=16_384), ranks=2).texts == 16


def test_dropout_keeps_its_masks_and_not_the_weights_of_fused_attention(folder: Path) -> None:
    BertConfig.from_pretrained(folder, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1).save_pretrained(
        folder
    )
    dropping = replace(TRAINING, dropout=True)
    plain, fused = estimate(folder).graph, estimate(folder, dropping).graph
    assert fused - plain == 5 * (4 * 32) * 32 * 4  # after the embeddings and twice in each layer: float32, on a CPU
    eager, dropped = (estimate(folder, training, attention="eager").graph for training in (TRAINING, dropping))
    assert dropped - eager > fused - plain  # eager attention keeps a mask and the weights that it has left


def test_longer_texts_than_the_model_reads_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"model\.max_length=4096 exceeds the \d+ positions of .*; lower"):
        estimate(folder, max_length=4096)


def test_seven_billion_weights_need_no_file_of_them(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    Qwen3Config(
        vocab_size=32_000,
        hidden_size=8192,  # wide, so that few layers, which are made one by one, are enough
        intermediate_size=28_672,
        num_hidden_layers=8,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=False,
    ).save_pretrained(tmp_path)
    model = Pretrained(str(tmp_path), dtype="bfloat16", max_length=512, lora=LoRA(rank=16))
    training = Training(batch_size=128, token_budget=2048, gradient_checkpointing=True)
    found = estimate_memory(model, training, InfoNCE(), ranks=8, negatives=2)
    assert found.parameters - found.trained == pytest.approx(7.11e9, rel=0.01)
    assert found.weights == 2 * (found.parameters - found.trained) + 4 * found.trained
    assert found.checkpointed < 0.2 * found.graph
    assert found.least < 24e9


def mistral_7b() -> MistralConfig:
    """Return the shape of Mistral 7B."""
    return MistralConfig(
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    )


@pytest.fixture
def eight_ranks() -> Iterator[None]:
    """This process is the first of eight, of which the others are pretended."""
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("eight_ranks")
def test_seven_billion_weights_are_shared_out_as_pytorch_shares_them(tmp_path: Path) -> None:
    """Each unit of the dry run is compared with what `fully_shard` leaves of it on the first of eight ranks."""
    pytest.importorskip("peft")
    mistral_7b().save_pretrained(tmp_path)
    model = Pretrained(str(tmp_path), dtype="bfloat16", max_length=512, lora=LoRA(rank=4))
    training = Training(batch_size=64, token_budget=4096, gradient_checkpointing=True)
    found = estimate_memory(model, training, InfoNCE(), ranks=8, negatives=1, sharded=True)
    with torch.device("meta"):
        backbone, _ = _backbone(model)
    units = units_of(backbone, bf16=True)
    expected = [  # of each unit: what is frozen and what is trained
        tuple(
            sum(shard_size(weight.shape, 8) for weight in weights if weight.requires_grad == moves)
            for moves in (False, True)
        )
        for weights in weights_of(units)
    ]
    shard_model(backbone, [], bf16=True)
    seen: set[nn.Parameter] = set()
    for unit, frozen_and_trained in zip(units, expected, strict=True):
        own = [weight for weight in unit.module.parameters() if weight not in seen]
        seen.update(own)
        local = [(weight.to_local().numel(), weight.requires_grad) for weight in own]  # type: ignore[attr-defined]
        assert tuple(sum(size for size, m in local if m == moves) for moves in (False, True)) == frozen_and_trained
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14_336 + 2 * 4096
    adapter = 4 * (4 * 4096 + 2 * (4096 + 1024) + 3 * (4096 + 14_336))
    assert len(units) == 34
    assert found.parameters - found.trained == 32_000 * 4096 + 32 * layer + 4096
    assert found.trained == 32 * adapter
    frozen, trained = (sum(sizes) for sizes in zip(*expected, strict=True))
    assert frozen == (found.parameters - found.trained) / 8
    assert (found.weights, found.gradients, found.moments) == (2 * frozen + 4 * trained, 4 * trained, 8 * trained)
    padding = 4 * (6 * 4096 + 14_336)  # the four rows of A are gathered as eight
    assert found.gathered == 2 * 2 * (layer + adapter + padding) + 2 * 4096
    assert found.full_model == 2 * (found.parameters - found.trained) + 4 * found.trained
    assert found.least == found.weights + found.moments + found.full_model < 17e9
    assert found.step < 6e9  # less than a validation between two steps


def test_the_parts_of_all_ranks_are_the_whole() -> None:
    for shape in ((32_000, 4096), (5, 3), (8,), (1, 7)):
        parts = [shard_size(shape, 3, rank) for rank in range(3)]
        assert sum(parts) == math.prod(shape)
        assert parts == sorted(parts, reverse=True)
    assert [shard_size((5, 3), 4, rank) for rank in range(4)] == [6, 6, 3, 0]


def test_shards_take_a_part_of_weights_and_as_much_of_the_rest(folder: Path) -> None:
    model = Pretrained(str(folder))
    whole = estimate(folder, ranks=3)
    found = estimate_memory(model, TRAINING, InfoNCE(), 3, 2, sharded=True)
    backbone = model.load("cpu").backbone

    def padded(module: nn.Module) -> int:
        return sum(3 * math.ceil(len(weight) / 3) * weight[0].numel() for weight in module.parameters())

    assert (found.weights, found.gradients, found.moments) == tuple(
        times * 4 * padded(backbone) // 3 for times in (1, 1, 2)
    )
    embeddings, layer = backbone.embeddings, backbone.encoder.layer[0]
    assert padded(layer) > padded(embeddings)
    assert found.gathered == 4 * (2 * padded(layer) + padded(backbone.pooler))
    assert found.reduced == 4 * (sum(weight.numel() for weight in layer.parameters()) + 4 * padded(layer) // 3)
    assert (found.graph, found.vectors, found.loss) == (whole.graph, whole.vectors, whole.loss)
    assert (found.exchange, whole.gathered, whole.reduced, whole.full_model) == (0, 0, 0, 0)
    assert (found.full_model, whole.step) == (whole.weights, whole.least)
    standing = found.weights + found.gradients + found.moments + found.vectors + found.relations
    assert found.step == standing + found.graph + found.gathered + found.reduced
    assert found.least == max(found.step, found.weights + found.moments + found.full_model)
    assert estimate_memory(model, TRAINING, InfoNCE(), 1, 2, sharded=True) == estimate(folder)


def test_other_kinds_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"query_adapter\.rank=4 trains no weights"):
        estimate(folder, query_adapter=QueryAdapterSettings(rank=4))
    with pytest.raises(UserError, match="models with one vector a text, not for late interaction"):
        estimate_memory(LateInteraction(str(folder)), TRAINING, InfoNCE(), 1, 2)


def test_doctor_shows_it(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.safetensors").unlink()
    run = ["model=custom", f"model.path={folder}", "trainer=ddp", "trainer.devices=8", "training.token_budget=128"]
    assert main(["doctor", "--memory", *run]) == 0
    told = " ".join(capsys.readouterr().out.split())
    weights = sum(weight.numel() for weight in BertModel(BertConfig.from_pretrained(folder)).parameters())
    assert f"weights {weights * 4 / 1e9:.3f} GB {weights:,} weights (float32)" in told
    assert " GB of 8, at most 2^26 weights at a time " in told
    assert " GB 4 texts of 32 tokens " in told
    assert " 512 queries, 3 documents each " in told
    assert main(["doctor", "--memory", *run, "trainer=fsdp"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f" GB one of 8 shards of {weights:,} weights (float32)" in told
    assert " gathered weights " in told
    assert " the full model " in told
    assert " sum over ranks " not in told
    assert main(["doctor", "--memory", *run, "loss=distill", "miner=hybrid", "miner.miner.negatives=5"]) == 0
    assert " 512 queries, 6 documents each " in " ".join(capsys.readouterr().out.split())
    assert main(["doctor", "--memory", "model=cross-encoder"]) != 0
