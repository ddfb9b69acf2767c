"""A language model learns to write a collection's queries: the loss, what is learned from, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from embfit.errors import UserError
from embfit.generator import DocumentChoice, LocalGenerator, TrainedGenerator
from embfit.generator.language_model import ModelFiles
from embfit.generator.protocol import source_documents
from embfit.generator.trained import own_pairs
from embfit.generator.writer_loss import WriterLoss, WrittenPair, query_loss
from embfit.generator.writer_training import WriterSettings, train_writer
from embfit.model import LoRA
from embfit.records import Collection
from embfit.store import Store
from embfit.style import Style
from tests.conftest import TEXTS, make_collection
from tests.generator.test_decoding import SIZES
from tests.generator.test_local import new_writer

CPU = torch.device("cpu")
PAIRS = [WrittenPair([2, 3, 4, 5, 6], [[7, 8, 9], [10, 11]]), WrittenPair([12, 13, 14, 15, 16, 17, 18, 19], [[20, 21]])]


def sliding() -> Any:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return Gemma3ForCausalLM(
        Gemma3TextConfig(**SIZES, layer_types=kinds, sliding_window=4, final_logit_softcapping=3.0)
    )


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
        loss = query_loss(model, PAIRS, CPU)
    assert sum(pair.predicted for pair in PAIRS) == count == 7
    assert float(loss) == pytest.approx(total, abs=1e-4)


def test_the_head_scores_only_what_the_loss_is_taken_of() -> None:
    model = full()
    shapes: list[tuple[int, ...]] = []
    model.get_output_embeddings().register_forward_hook(lambda *of: shapes.append(tuple(of[2].shape)))
    query_loss(model, PAIRS, CPU)
    assert shapes == [(1, 7, SIZES["vocab_size"])]  # and not 2 rows of 10 tokens
    assert model(torch.tensor([[2, 3, 4]])).logits.shape == (1, 3, SIZES["vocab_size"])  # as it was before


@pytest.mark.parametrize("budget", [1, 20])  # each document alone, two at once
def test_micro_batches_have_the_gradients_of_the_whole(budget: int) -> None:
    torch.manual_seed(0)
    model = full()
    pairs = [*PAIRS, WrittenPair([3, 9, 9], [[30, 31, 32, 33], [5], [6, 7]])]
    (query_loss(model, pairs, CPU) / 14).backward()
    plain = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    widths: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda *of: widths.append(tuple(of[2]["input_ids"].shape)), with_kwargs=True)
    loss = WriterLoss(model, False, budget)
    assert loss.backward(pairs) == pytest.approx(loss.mean(pairs), abs=1e-5)
    assert widths[: len(widths) // 2] == ([(1, 10), (1, 10), (1, 10)] if budget == 1 else [(2, 10), (1, 10)])
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, plain[name], atol=1e-5, rtol=0, msg=name)


def test_dropout_is_drawn_by_the_seed() -> None:
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4))
        torch.rand(len(losses) + 1)  # what was drawn before changes nothing
        state = torch.get_rng_state()
        train_writer(model, PAIRS[:1], [], WriterSettings(1, seed=seed), bf16=False)
        assert torch.equal(torch.get_rng_state(), state)
        losses.append(WriterLoss(model, bf16=False).mean(PAIRS))
    assert losses[0] == losses[1] != losses[2]


def test_the_rate_falls_to_zero_whatever_number_of_batches_an_order_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents with 1 to 4 queries make 6 to 8 batches, by their order."""
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: Any, *rest: Any, **more: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *rest, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    pairs = [WrittenPair([2, 3], [[7, 8]] * (1 + number % 4)) for number in range(12)]
    for seed in range(8):
        rates.clear()
        train_writer(full(), pairs, [], WriterSettings(3, 4, lr=1e-3, warmup=0.0, seed=seed), bf16=False)
        assert rates == pytest.approx([1e-3 * (1 - number / len(rates)) for number in range(len(rates))])


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
    with pytest.raises(UserError, match="small has 8 training pairs with documents that are not relevant in"):
        own_pairs(small_collection, None, 0)


def test_a_model_with_too_few_positions_is_told_what_to_lower(labelled: Collection, tmp_path: Path) -> None:
    base = new_writer(tmp_path / "base", positions=60)
    settings = {"queries": 2, "document_tokens": 40, "max_tokens": 16, "device": "cpu", "precision": "fp32"}
    documents = source_documents(labelled, [0], DocumentChoice())
    told = r"has positions for 60 tokens, and a prompt with its query has [\d,]+; lower generator\.document_tokens=40"
    for made in (
        TrainedGenerator(model=str(base), **settings),
        LocalGenerator(model=str(base), styles={"question": Style("question.md")}, **settings),
    ):
        with pytest.raises(UserError, match=told):
            made.generate(labelled, documents, tmp_path / "generation")


def test_an_adapters_settings_are_named_by_their_own_key(labelled: Collection, tmp_path: Path) -> None:
    lora = LoRA(rank=4, targets=["query"])
    made = TrainedGenerator(model=str(new_writer(tmp_path / "base")), lora=lora, device="cpu", precision="fp32")
    with pytest.raises(UserError, match=r"generator\.lora\.targets: the layers of LlamaForCausalLM have no linear"):
        made.trained_model(labelled, Store(tmp_path))


def test_one_document_is_learned_from_and_none_held_out(tmp_path: Path) -> None:
    """Ten queries about one document, all of which `held_out` would take."""
    queries = {f"q{row}": f"heart number {row}" for row in range(10)}
    collection = make_collection({"d0": TEXTS[0]}, queries, {"train": {name: {"d0": 1} for name in queries}})
    base = new_writer(tmp_path / "base")
    made = TrainedGenerator(model=str(base), epochs=1, held_out=0.9, max_tokens=16, precision="fp32", device="cpu")
    documents = source_documents(collection, [0], DocumentChoice())
    facts = made.generate(collection, documents, tmp_path / "generation").facts
    assert (facts["trained_on_pairs"], facts["held_out_loss"]) == (10, [])


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


def test_a_loss_that_is_no_number_is_told_with_its_remedy() -> None:
    model = full()
    model.get_output_embeddings().weight.data[3] = float("nan")
    with pytest.raises(UserError, match=r"before any training; set generator\.precision=fp32"):
        train_writer(model, PAIRS, PAIRS, WriterSettings(), bf16=False)
    with pytest.raises(UserError, match=r"became NaN or infinite; lower generator\.lr=0\.01"):
        train_writer(model, PAIRS, [], WriterSettings(lr=1e-2), bf16=False)


def test_a_gradient_that_is_no_number_moves_no_weight() -> None:
    model = full()
    model.get_input_embeddings().weight.register_hook(lambda gradient: gradient * float("inf"))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with pytest.raises(UserError, match=r"gradient of the query writer became NaN or infinite; lower generator\.lr=0"):
        train_writer(model, PAIRS, [], WriterSettings(lr=1e-2), bf16=False)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("lr", [1e-3, 3e-3, 5e-3, 30.0])
def test_the_weights_that_write_held_out_queries_best_are_kept(lr: float, epochs: int, caplog: Any) -> None:
    torch.manual_seed(0)
    model = full()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    settings = WriterSettings(epochs, batch_size=2, lr=lr, warmup=0.0)
    facts = train_writer(model, PAIRS * 4, PAIRS, settings, bf16=False)
    with torch.no_grad():
        loss = query_loss(model, PAIRS, CPU) / 7
    assert float(loss) == pytest.approx(min(facts["held_out_loss"]), abs=1e-4)
    learned = lr < 1
    assert facts.get("kept_epoch") == (epochs if learned else None)
    assert ("no more probable" in caplog.text) is not learned
    if not learned:
        assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
