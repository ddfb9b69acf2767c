from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from embfit.tokens import Tokens, concatenate, padding_share, plan_batches, tokenize, tokenize_blocks
from tests.conftest import TEXTS


def test_tokenize_is_the_tokenizers_own_output(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenize(tokenizer, TEXTS, max_length=10, prompt="query: ")
    for row, text in enumerate(TEXTS):
        expected = tokenizer("query: " + text, truncation=True, max_length=10)["input_ids"]
        assert tokens.ids[tokens.starts[row] : tokens.starts[row + 1]].tolist() == expected


def test_truncated_texts_are_marked(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenize(tokenizer, ["the heart", "the heart pumps blood through arteries"], max_length=4)
    assert tokens.truncated.tolist() == [False, True]  # [CLS] the heart [SEP] is exactly 4
    assert tokens.lengths.tolist() == [4, 4]


def test_a_tokenizer_file_that_pads_and_cuts_does_not_decide(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=20)
    assert tokenize(tokenizer, ["the heart pumps"], max_length=32).lengths.tolist() == [5]


def test_blocks_join_to_the_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = tokenize(tokenizer, TEXTS, 32)
    joined = concatenate(list(tokenize_blocks(tokenizer, TEXTS, 32, block=5)))
    assert joined.ids.tolist() == whole.ids.tolist()
    assert joined.starts.tolist() == whole.starts.tolist()


def test_an_error_in_the_texts_reaches_the_caller(tokenizer: PreTrainedTokenizerFast) -> None:
    def texts() -> object:
        yield "the heart"
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        tokenize(tokenizer, texts(), 32)


def ragged() -> Tokens:
    return Tokens(np.array([5, 6, 7, 8, 9, 1], np.int32), np.array([0, 2, 5, 6]), np.zeros(3, bool))


def test_padded_on_either_side() -> None:
    ids, mask = ragged().padded(np.array([1, 2]), pad=0)
    assert ids.tolist() == [[7, 8, 9], [1, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    ids, mask = ragged().padded(np.array([1, 2]), pad=0, left=True)
    assert ids.tolist() == [[7, 8, 9], [0, 0, 1]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_take_keeps_the_order_asked_for() -> None:
    taken = ragged().take([2, 0])
    assert taken.ids.tolist() == [1, 5, 6]
    assert taken.starts.tolist() == [0, 1, 3]


def test_save_and_load(tmp_path: object) -> None:
    ragged().save(tmp_path)
    loaded = Tokens.load(tmp_path)
    assert loaded.ids.tolist() == ragged().ids.tolist()
    assert isinstance(loaded.ids, np.memmap)


def test_plan_respects_the_budget_and_holds_every_text_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    batches = plan_batches(lengths, token_budget=128)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert max(len(batch) * lengths[batch].max() for batch in batches) <= 128
    assert [lengths[batch].max() for batch in batches] == sorted((lengths[b].max() for b in batches), reverse=True)


def test_a_text_over_the_budget_is_a_batch_of_its_own() -> None:
    assert [batch.tolist() for batch in plan_batches(np.array([3, 50, 4]), 10)] == [[1], [2, 0]]


def test_padding_share() -> None:
    lengths = np.array([4, 2, 3])
    assert padding_share(lengths, [np.array([0, 1]), np.array([2])]) == pytest.approx(1 - 9 / 11)
    assert padding_share(lengths, []) == 0.0


def test_tokens_of_a_folder_are_pickled_as_its_name(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    made = tokenize(tokenizer, TEXTS * 50, max_length=32)
    made.save(tmp_path)
    for tokens in (made, Tokens.load(tmp_path)):
        again = pickle.loads(pickle.dumps(tokens))
        assert (again.ids.tolist(), again.starts.tolist()) == (made.ids.tolist(), made.starts.tolist())
    assert isinstance(again.ids, np.memmap)
    assert len(pickle.dumps(tokens)) < 300 < len(pickle.dumps(made))


def test_threads_that_ask_for_other_lengths_get_their_own(tokenizer: PreTrainedTokenizerFast) -> None:
    """A fast tokenizer keeps the length that it was last told."""
    texts = ["the heart pumps blood through arteries and veins"] * 4

    def longest(length: int) -> int:
        return int(tokenize(tokenizer, texts, length).lengths.max())

    asked = [4, 8] * 300
    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(longest, asked)] == asked
