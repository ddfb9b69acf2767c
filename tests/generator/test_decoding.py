"""Samples that share a prefix and a prompt have the probabilities that the model gives them read one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from embfit.errors import UserError
from embfit.generator.decoding import CausalDecoding, Prompt, SeqToSeqDecoding
from embfit.generator.sampling import Draws, Sampling

VOCABULARY = 40
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.5,  # probabilities that differ
}
PROMPTS = [Prompt([5, 6, 7, 8, 9, 10, 11], 1), Prompt([12, 13, 14], 2), Prompt(list(range(3, 30)), 3)]
SAMPLING = Sampling(temperatures=(0.7, 1.0), top_p=0.9, top_k=20, max_tokens=12)


def llama() -> Any:
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def gemma() -> Any:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, layer_types=kinds, sliding_window=6))


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, initializer_range=0.5))


def made(build: Any) -> Any:
    torch.manual_seed(0)
    return build().eval()


def stops(*tokens: int) -> torch.Tensor:
    found = torch.zeros(VOCABULARY, dtype=torch.bool)
    found[list(tokens)] = True
    return found


@pytest.mark.parametrize("build", [llama, gemma, gpt2])
@pytest.mark.parametrize("prefix", [[], [1, 2, 3, 4, 5, 6, 7, 8, 9]])
def test_samples_have_the_probabilities_of_reading_them_alone(build: Any, prefix: list[int]) -> None:
    model = made(build)
    found = CausalDecoding(model, stops(0, 1), prefix).sample(PROMPTS, 3, SAMPLING)
    assert [len(samples) for samples in found] == [3, 3, 3]
    for prompt, samples in zip(PROMPTS, found, strict=True):
        for sample in samples:
            text = [*prefix, *prompt.tokens, *sample.tokens]
            with torch.inference_mode():
                logits = model(torch.tensor([text])).logits[0].log_softmax(-1)
            at = range(len(text) - len(sample.tokens), len(text))
            expected = sum(float(logits[place - 1, text[place]]) for place in at) / len(sample.tokens)
            assert sample.log_probability == pytest.approx(expected, abs=2e-4)
            assert sample.finished == (sample.tokens[-1] in (0, 1))
            assert not {0, 1} & set(sample.tokens[:-1])


def test_a_sample_depends_on_its_prompt_and_place_alone() -> None:
    decoding = CausalDecoding(made(llama), stops(0))
    whole = decoding.sample(PROMPTS, 3, SAMPLING)
    assert [sample.tokens for sample in decoding.sample(PROMPTS[1:2], 2, SAMPLING)[0]] == [
        sample.tokens for sample in whole[1][:2]
    ]
    assert len({tuple(sample.tokens) for samples in whole for sample in samples}) > 6


def test_drawn_tokens_follow_their_probabilities() -> None:
    """At temperature 0.5 the first token of 3,000 samples has its shares within three standard errors; top-p cuts."""
    model = made(llama)
    sampling = Sampling(temperatures=(0.5,), top_p=0.8, top_k=VOCABULARY, max_tokens=1)
    drawn = CausalDecoding(model, stops(0)).sample(PROMPTS[:1], 3000, sampling)[0]
    with torch.inference_mode():
        shares = (model(torch.tensor([PROMPTS[0].tokens])).logits[0, -1] / 0.5).softmax(-1)
    order = shares.argsort(descending=True)
    kept = order[: int((shares[order].cumsum(0) < 0.8).sum()) + 1]
    expected = shares[kept] / shares[kept].sum()
    counts = torch.bincount(torch.tensor([sample.tokens[0] for sample in drawn]), minlength=VOCABULARY)
    assert set(counts.nonzero().flatten().tolist()) <= set(kept.tolist())
    errors = (expected * (1 - expected) / 3000).sqrt()
    assert ((counts[kept] / 3000 - expected).abs() <= 4 * errors + 1e-9).all()


def test_an_encoder_and_a_decoder_give_the_same_probabilities() -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).eval()
    model.lm_head.weight.data.normal_(0, 0.5)
    found = SeqToSeqDecoding(model, stops(1)).sample(PROMPTS, 3, SAMPLING)
    for prompt, samples in zip(PROMPTS, found, strict=True):
        for sample in samples:
            with torch.inference_mode():
                read = {"input_ids": torch.tensor([prompt.tokens])}
                begun = torch.tensor([[0, *sample.tokens[:-1]]])
                logits = model(**read, decoder_input_ids=begun).logits[0].log_softmax(-1)
            scores = [float(logits[place, token]) for place, token in enumerate(sample.tokens)]
            assert sample.log_probability == pytest.approx(sum(scores) / len(scores), abs=2e-4)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_told(broken: float) -> None:
    logits = torch.zeros(2, 1, VOCABULARY)
    logits[1, 0, 7] = broken
    draws = Draws([1, 2], 1, SAMPLING, stops(0))
    with pytest.raises(UserError, match=r"scores became NaN or infinite; set generator\.precision=fp32"):
        draws.next(logits)
