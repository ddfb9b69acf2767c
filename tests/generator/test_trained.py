"""A language model learns to write a collection's queries: the loss, what is learned from, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaForCausalLM

from embfit.errors import UserError
from embfit.generator import DocumentChoice, TrainedGenerator
from embfit.generator.generated import source_documents
from embfit.generator.language_model import ModelFiles
from embfit.generator.trained import own_pairs
from embfit.generator.writer_training import WriterSettings, WrittenPair, query_loss, train_writer
from embfit.model import LoRA
from embfit.records import Collection
from embfit.store import Store
from tests.conftest import TEXTS, make_collection
from tests.generator.test_decoding import SIZES
from tests.generator.test_local import new_writer

PAIRS = [WrittenPair([2, 3, 4, 5, 6], [[7, 8, 9], [10, 11]]), WrittenPair([12, 13, 14, 15, 16, 17, 18, 19], [[20, 21]])]


def sliding() -> Any:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, layer_types=kinds, sliding_window=4))


def full() -> Any:
    return LlamaForCausalLM(LlamaForCausalLM.config_class(**SIZES))


@pytest.mark.parametrize("build", [full, sliding])
def test_the_loss_is_that_of_each_query_read_alone(build: Any) -> None:
    torch.manual_seed(0)
    model = build().eval()
    total, count = 0.0, 0
    for pair in PAIRS:
        for query in pair.queries:
            text = [*pair.prompt, *query]
            with torch.no_grad():
                logits = model(torch.tensor([text])).logits[0].log_softmax(-1)
            total -= sum(float(logits[len(pair.prompt) + n - 1, token]) for n, token in enumerate(query))
            count += len(query)
    with torch.no_grad():
        loss, tokens = query_loss(model, PAIRS, torch.device("cpu"))
    assert tokens == count == 7
    assert float(loss) == pytest.approx(total / count, abs=1e-4)


@pytest.fixture
def labelled() -> Collection:
    """Thirty-six documents, each with a query that is its first three words; the first two are test's."""
    texts = [f"{text} {ending}" for ending in ("often", "rarely", "in children") for text in TEXTS]
    queries = {f"q{row}": " ".join(text.split()[:3]) for row, text in enumerate(texts)}
    qrels = {
        "train": {f"q{row}": {f"d{row}": 1} for row in range(1, 36)},
        "test": {"q0": {"d0": 1}, "q1": {"d1": 1}},
    }
    return make_collection({f"d{row}": text for row, text in enumerate(texts)}, queries, qrels)


def test_documents_of_evaluation_are_not_learned_from(labelled: Collection) -> None:
    pairs = own_pairs(labelled, None, 0)
    assert sorted(pairs) == list(range(2, 36))
    assert pairs[2] == ("a fever is a body temperature above normal, often from infection often", ["a fever is"])
    assert len(own_pairs(labelled, 12, 0)) == 12
    assert own_pairs(labelled, 12, 0) != own_pairs(labelled, 12, 1)


def test_too_few_pairs_are_refused(small_collection: Collection) -> None:
    with pytest.raises(UserError, match="small has 8 training pairs about documents that no other split asks for"):
        own_pairs(small_collection, None, 0)


@pytest.mark.parametrize("rank", [None, 8])
def test_it_learns_and_is_trained_once(labelled: Collection, tmp_path: Path, rank: int | None) -> None:
    base = new_writer(tmp_path / "base")
    made = TrainedGenerator(
        model=str(base), epochs=6, lr=1e-2, pairs_per_step=8, lora=LoRA(rank=rank), queries=2, max_tokens=16,
        temperatures=(0.2,), precision="fp32", device="cpu",
    )  # fmt: skip
    documents = source_documents(labelled, [0, 1, 2, 3], DocumentChoice())
    before = made.estimate(labelled, documents, tmp_path / "generation")
    assert (before.requests, before.answered, before.pairs) == (4, 0, 34)
    assert not (tmp_path / "query-writers").exists()  # nothing was trained for it
    found = made.generate(labelled, documents, tmp_path / "generation")
    losses = found.facts["held_out_loss"]
    assert losses[found.facts["kept_epoch"]] == min(losses) < losses[0] - 1
    assert (found.facts["trained_on_pairs"], found.facts["answered"]) == (31, 4)
    after = made.estimate(labelled, documents, tmp_path / "generation")
    assert (after.requests, after.answered, after.pairs) == (4, 4, 0)
    store = Store(tmp_path)
    files = made.trained_model(labelled, store)
    assert store.reused == ["query-writers"]
    assert isinstance(files, ModelFiles)
    assert files.load("cpu").parameters == ModelFiles.find(str(base), None, None, store).load("cpu").parameters


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("lr", [1e-3, 3e-3, 5e-3, 30.0])
def test_the_weights_that_write_held_out_queries_best_are_kept(lr: float, epochs: int, caplog: Any) -> None:
    torch.manual_seed(0)
    model = full()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    settings = WriterSettings(epochs, batch_size=2, lr=lr, warmup=0.0)
    facts = train_writer(model, PAIRS * 4, PAIRS, settings, bf16=False)
    with torch.no_grad():
        loss, _ = query_loss(model, PAIRS, torch.device("cpu"))
    assert float(loss) == pytest.approx(min(facts["held_out_loss"]), abs=1e-4)
    learned = lr < 1
    assert facts.get("kept_epoch") == (epochs if learned else None)
    assert ("no more probable" in caplog.text) is not learned
    if not learned:
        assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
