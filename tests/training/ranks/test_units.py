"""Which models can be sharded, and the units of those that can."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeModel,
    SwitchTransformersConfig,
    SwitchTransformersEncoderModel,
    T5Config,
    T5EncoderModel,
)

from embfit.errors import UserError
from embfit.evaluator.systems import EvaluationContext
from embfit.loss import Listwise
from embfit.model.pretrained_cross_encoder import PretrainedCrossEncoder
from embfit.task.cross_encoder_trainee import CrossEncoderTrainee
from embfit.training import ListTraining
from embfit.training.ranks.units import check_shardable, units_of, weights_of
from tests.conftest import new_encoder, new_tokenizer

SMALL = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
T5 = {"vocab_size": 32, "d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 2, "num_heads": 2}


def albert() -> PreTrainedModel:
    return AlbertModel(AlbertConfig(**SMALL, embedding_size=8, intermediate_size=16))


def tied() -> PreTrainedModel:
    return T5EncoderModel(T5Config(**T5))


def separate_experts() -> PreTrainedModel:
    config = SwitchTransformersConfig(**T5, num_experts=2, num_sparse_encoder_layers=1)
    return SwitchTransformersEncoderModel(config).encoder


def repeated() -> PreTrainedModel:
    backbone = bert()
    backbone.encoder.layer = nn.ModuleList([backbone.encoder.layer[0]] * 2)
    return backbone


def scaled() -> PreTrainedModel:
    backbone = bert()
    backbone.encoder.layer[1].scale = nn.Parameter(torch.ones(()))
    return backbone


def bert() -> PreTrainedModel:
    return new_encoder(new_tokenizer(), 0.0).backbone


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (albert, "AlbertModel has no list of 2 layers"),
        (repeated, "BertModel uses one layer several times"),
        (tied, r"two weights of shared\.weight and encoder\.embed_tokens\.weight in T5EncoderModel"),
        (separate_experts, r"only some modules of .*\.experts in SwitchTransformersStack"),
        (scaled, r"encoder\.layer\.1\.scale in BertModel is one number; set trainer\.strategy=ddp"),
    ],
)
def test_what_cannot_be_sharded_is_refused(model: Callable[[], PreTrainedModel], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_shardable(model())


def test_experts_that_are_one_weight_are_units_of_their_layers() -> None:
    config = Qwen3MoeConfig(**SMALL, intermediate_size=16, moe_intermediate_size=8, num_experts=4, head_dim=8)
    model = Qwen3MoeModel(config)
    units = units_of(model, bf16=False)
    assert [unit.module for unit in units] == [*model.layers, model.embed_tokens, model]
    found = weights_of(units)
    assert any(weight is model.layers[0].mlp.experts.down_proj for weight in found[0])
    assert sum(map(len, found)) == len(list(model.parameters()))


def test_a_model_is_refused_when_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    ranker = SimpleNamespace(backbone=scaled())
    monkeypatch.setattr(PretrainedCrossEncoder, "load", lambda self, device: ranker)
    trainee = CrossEncoderTrainee(PretrainedCrossEncoder("ranker"), Listwise(), ListTraining())
    context = cast(EvaluationContext, SimpleNamespace(devices=("cpu",)))
    assert trainee.load(context, sharded=False) is ranker
    with pytest.raises(UserError, match="is one number"):
        trainee.load(context, sharded=True)
