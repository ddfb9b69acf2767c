"""Pairs put together from single texts are what the tokenizer itself makes of two."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from embfit.model.text_pairs import TextPairs, longest_first, read_template
from embfit.tokens import tokenize
from tests.conftest import TEXTS, new_tokenizer

POST_PROCESSORS = {
    "one type": processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    ),
    "bert": processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "roberta": processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "nothing in front": processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B:1", special_tokens=[("[SEP]", 3)]
    ),
}


def paired(tokenizer: PreTrainedTokenizerFast, texts: list[tuple[str, str]], max_length: int) -> TextPairs:
    template = read_template(tokenizer)
    queries, documents = (tokenize(tokenizer, side, 64, special=False) for side in zip(*texts, strict=True))
    rows = np.stack([np.arange(len(texts))] * 2, axis=1)
    return TextPairs(template, queries, documents, rows, max_length)


@pytest.mark.parametrize("name", POST_PROCESSORS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [8, 11, 16, 64])
def test_pairs_equal_the_tokenizers_own(name: str, side: str, max_length: int) -> None:
    tokenizer = new_tokenizer()
    tokenizer.backend_tokenizer.post_processor = POST_PROCESSORS[name]
    tokenizer.padding_side = side
    texts = [(a, b) for a in (TEXTS[0], "blood", TEXTS[3]) for b in (TEXTS[1], TEXTS[7], "bile", "")]
    ids, mask, types = paired(tokenizer, texts, max_length).padded(
        np.arange(len(texts)), tokenizer.pad_token_id, side == "left"
    )
    theirs = tokenizer(
        *map(list, zip(*texts, strict=True)),
        truncation=True,
        max_length=max_length,
        padding=True,
        return_tensors="pt",
        return_token_type_ids=True,
    )
    assert ids.tolist() == theirs["input_ids"].tolist()
    assert mask.tolist() == theirs["attention_mask"].tolist()
    assert (types * mask).tolist() == (theirs["token_type_ids"] * theirs["attention_mask"]).tolist()


def test_the_longer_text_is_cut_first() -> None:
    lengths = np.array([[3, 4], [3, 20], [20, 3], [20, 30], [30, 20], [4, 6]])
    assert longest_first(lengths, 9).tolist() == [[3, 4], [3, 6], [6, 3], [4, 5], [5, 4], [4, 5]]


def test_a_text_is_stored_once_however_many_pairs_it_is_in(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = paired(tokenizer, [(TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[3])], 64)
    crossed = TextPairs(pairs.template, pairs.queries, pairs.documents, np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), 64)
    assert len(crossed.queries) == 2
    assert crossed.lengths[[0, 3]].tolist() == pairs.lengths.tolist()
    assert crossed.take([3]).padded(np.array([0]), 0)[0].tolist() == pairs.padded(np.array([1]), 0)[0].tolist()
