from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen3ForSequenceClassification

from embfit.errors import ConfigError, UserError
from embfit.loss import Binary, InfoNCE, Listwise
from embfit.model import CrossEncoder, tokenized_for_pairs
from embfit.model.cross_encoder import PairSettings
from embfit.model.settings import Attention
from embfit.ragged import Ragged
from embfit.records import Collection, DevQuality, TrainingSet
from embfit.store import Store
from embfit.training import ListTraining
from embfit.training.batches import ExampleArrays
from embfit.training.lists import EpochLists, ListData, Lists, list_batch
from embfit.training.step.gradients import ComputeSettings
from embfit.training.step.optimization import Optimization
from tests.conftest import new_ranker, steady
from tests.model.architectures import qwen3_embedding

TRAINER = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
STILL = Optimization(lr=0.0, loss_lr=0.0, weight_decay=0.0, warmup=0.0, schedule="constant", clip_norm=None, steps=1)


def training_set(collection: Collection, negatives: int = 3) -> TrainingSet:
    """Eight queries, the last two without negatives."""
    rows = [
        {
            "query": row,
            "positives": [row],
            "negatives": [(row + step) % 12 for step in range(1, negatives + 1)] if row < 6 else [],
            "scores": [],
            "weight": 1.0 + row,
            "source": "test",
        }
        for row in range(8)
    ]
    return TrainingSet(collection, Dataset.from_list(rows), {row: frozenset([row]) for row in range(8)})


def test_lists_by_hand() -> None:
    positives, negatives = Ragged.of([[5], [6, 7]]), Ragged.of([[1, 2, 3], [4]])
    batch = list_batch(np.array([10, 20]), positives, negatives, np.array([1.0, 2.0]))
    assert batch.pairs.tolist() == [[10, 5], [20, 6], [20, 7], [10, 1], [10, 2], [10, 3], [20, 4]]
    assert batch.positives.tolist() == [[True, False, False, False], [True, True, False, False]]
    assert batch.negatives.tolist() == [[False, True, True, True], [False, False, True, False]]
    assert batch.places.tolist() == [0, 4, 5, 1, 2, 3, 6]


def test_an_epoch_holds_each_list_once_and_repeats_itself(small_collection: Collection) -> None:
    examples = ExampleArrays(training_set(small_collection), 1)

    def queries(seed: int, epoch: int) -> list[list[int]]:
        batches = EpochLists(examples, 3, 2, seed, epoch)
        return [sorted(set(batches[row].pairs[:, 0].tolist())) for row in range(len(batches))]

    assert sorted(query for part in queries(0, 0) for query in part) == list(range(8))
    assert queries(0, 0) == queries(0, 0) != queries(0, 1)
    for batch in EpochLists(examples, 3, 2, 0, 0):
        firsts = batch.pairs[: len(batch.weights), 0]  # one positive each, and these stand first
        assert batch.weights.tolist() == [1.0 + query for query in firsts]


def gradients(
    ranker: CrossEncoder,
    found: TrainingSet,
    loss: nn.Module,
    memory_gb: float | None,
    dropout: bool,
    checkpointing: bool = False,
) -> dict[str, torch.Tensor]:
    """The trainer's own step on all lists, stopped before the weights move."""
    collection = found.collection
    queries, documents = ranker.tokenize(collection.query_texts()), ranker.tokenize(collection.document_texts())
    compute = ComputeSettings(80, memory_gb, dropout, "fp32", 0, checkpointing)  # a few pairs each
    data = ListData(ExampleArrays(found, 1), queries, documents, batch_size=8, negatives=3)
    module = Lists(ranker, loss, data, STILL, compute)
    caught: dict[str, torch.Tensor] = {}

    def catch(loss: torch.Tensor) -> torch.Tensor:
        caught.update({name: one.grad.clone() for name, one in ranker.named_parameters() if one.grad is not None})
        return torch.zeros(())

    ranker.train(dropout)
    module._update = catch
    module.record = lambda *arguments: None
    module.training_step(module.prepare(EpochLists(data.examples, 8, 3, 0, 0)[0]), 0)
    return caught


@pytest.mark.parametrize("loss", [Listwise(), Binary(2.0)])
def test_a_step_equals_the_textbooks(
    tokenizer: PreTrainedTokenizerFast, small_collection: Collection, loss: nn.Module
) -> None:
    """One padded batch of texts as the tokenizer pairs them, one graph, one backward."""
    found = training_set(small_collection)
    ranker = new_ranker(tokenizer)
    batch = EpochLists(ExampleArrays(found, 1), 8, 3, 0, 0)[0]
    queries, documents = list(small_collection.query_texts()), list(small_collection.document_texts())
    texts = [(queries[query], documents[document]) for query, document in batch.pairs]
    inputs = tokenizer(
        *map(list, zip(*texts, strict=True)), truncation=True, max_length=32, padding=True, return_tensors="pt"
    )
    scores = ranker.backbone(**inputs).logits[:, 0]
    matrix = torch.zeros(batch.positives.shape)
    for place, score in zip(batch.places.tolist(), scores, strict=True):
        matrix[divmod(place, matrix.shape[1])] = score
    loss(matrix, batch.positives, batch.negatives, batch.weights).backward()
    expected = {name: one.grad.clone() for name, one in ranker.named_parameters() if one.grad is not None}
    for memory_gb in (None, 0.0):  # all graphs kept, and none
        found_gradients = gradients(new_ranker(tokenizer), found, loss, memory_gb, dropout=False)
        assert found_gradients.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found_gradients[name], value, atol=1e-5, rtol=1e-4)


def test_memory_does_not_change_a_bit(tokenizer: PreTrainedTokenizerFast, small_collection: Collection) -> None:
    found = training_set(small_collection)
    kept, again = (gradients(new_ranker(tokenizer, 0.3), found, Listwise(), gb, dropout=True) for gb in (None, 0.0))
    assert all(torch.equal(kept[name], again[name]) for name in kept)


@pytest.mark.parametrize("memory_gb", [None, 0.0])
def test_gradient_checkpointing_does_not_change_gradients(
    tokenizer: PreTrainedTokenizerFast, small_collection: Collection, memory_gb: float | None
) -> None:
    found = training_set(small_collection)
    plain, again = (
        gradients(new_ranker(tokenizer, 0.3), found, Listwise(), memory_gb, True, checkpointing)
        for checkpointing in (False, True)
    )
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-6, rtol=1e-6)


def test_a_decoders_layers_are_computed_again_without_its_cache(small_collection: Collection) -> None:
    backbone, tokenizer = qwen3_embedding()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    torch.manual_seed(0)
    backbone.config.num_labels, backbone.config.pad_token_id = 1, tokenizer.pad_token_id
    decoder = Qwen3ForSequenceClassification(backbone.config)
    ranker = CrossEncoder(decoder, tokenizer, PairSettings(32, "fp32"))
    found = training_set(small_collection)
    plain = gradients(ranker, found, Listwise(), None, dropout=False)
    ranker.zero_grad()
    again = gradients(ranker, found, Listwise(), None, dropout=False, checkpointing=True)
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("asked", "used"), [("auto", "eager"), ("sdpa", "sdpa")])
def test_a_cpu_trains_with_plain_attention(
    tokenizer: PreTrainedTokenizerFast, small_collection: Collection, asked: Attention, used: str
) -> None:
    ranker = new_ranker(tokenizer)
    ranker.settings = replace(ranker.settings, attention=asked)
    seen: set[str] = set()
    ranker.backbone.bert.register_forward_hook(lambda *given: seen.add(ranker.backbone.config._attn_implementation))
    gradients(ranker, training_set(small_collection), Listwise(), None, dropout=False)
    assert seen == {used}
    assert ranker.backbone.config._attn_implementation == "sdpa"


def test_training_puts_positives_first(
    tokenizer: PreTrainedTokenizerFast, small_collection: Collection, store: Store, tmp_path: Path
) -> None:
    ranker, found = new_ranker(tokenizer), training_set(small_collection)
    queries, documents = list(small_collection.query_texts()), list(small_collection.document_texts())

    def first(ranker: CrossEncoder) -> DevQuality:
        right = [
            scores[row["positives"][0]] > max(scores[other] for other in row["negatives"])
            for row in found.rows
            if row["negatives"]
            for scores in [ranker.score([(queries[row["query"]], document) for document in documents])]
        ]
        return steady(sum(right) / len(right))

    before = first(ranker).metrics["ndcg@10"]
    fit = ListTraining(epochs=30, batch_size=4, lr=2e-3, precision="fp32", patience=None, validations_per_epoch=1)
    facts = fit.fit(ranker, Listwise(), found, first, TRAINER, store, tmp_path)
    assert before < 0.7
    assert first(ranker).metrics["ndcg@10"] == 1.0
    assert facts.history[0]["ndcg@10"] == before
    assert facts.pairs_per_second > 0


def test_other_lists_are_another_training(
    tiny_ranker: CrossEncoder, small_collection: Collection, store: Store, tmp_path: Path
) -> None:
    found, lists = training_set(small_collection), ListTraining(steps=1, lr=1e-9, precision="fp32")
    lists.fit(tiny_ranker, Listwise(), found, None, TRAINER, store, tmp_path)
    for other in ({"negatives": 2}, {"seed": 1}):
        with pytest.raises(UserError, match="is of another training"):
            replace(lists, **other).fit(tiny_ranker, Listwise(), found, None, TRAINER, store, tmp_path)


def test_what_cannot_be_trained_on(
    tiny_ranker: CrossEncoder, small_collection: Collection, store: Store, tmp_path: Path
) -> None:
    without = training_set(small_collection, negatives=0)
    with pytest.raises(UserError, match="no query has a negative"):
        ListTraining().fit(tiny_ranker, Listwise(), without, None, TRAINER, store, tmp_path)
    with pytest.raises(ConfigError, match="InfoNCE is a loss of embeddings"):
        ListTraining().fit(tiny_ranker, InfoNCE(), without, None, TRAINER, store, tmp_path)


def test_texts_are_tokenised_once_for_all_folds_and_pickled_by_name(
    tokenizer: PreTrainedTokenizerFast, small_collection: Collection, store: Store
) -> None:
    first, second = new_ranker(tokenizer), new_ranker(tokenizer)
    tokens = tokenized_for_pairs(first, small_collection, "document", store)
    assert store.built == ["tokens"]
    again = tokenized_for_pairs(second, small_collection, "document", store)
    assert store.built == ["tokens"]
    plain = first.tokenize(small_collection.document_texts())
    assert again.ids.tolist() == tokens.ids.tolist() == plain.ids.tolist()
    assert again.starts.tolist() == plain.starts.tolist()
    assert len(pickle.dumps(tokens)) < 500  # the folder's name, no tokens
