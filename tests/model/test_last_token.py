from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaTokenizer

from embfit.errors import UserError
from embfit.model import BiEncoder, Encoder, Pretrained, save_encoder
from embfit.model.last_token import append_end_token, end_token
from tests.conftest import TEXTS
from tests.model.architectures import e5_mistral, gte_modernbert, qwen3_embedding


def test_which_token_ends_a_text() -> None:
    assert end_token(e5_mistral()[1]) is None
    qwen = qwen3_embedding()[1]
    assert end_token(qwen) == qwen.convert_tokens_to_ids("<|endoftext|>") != qwen.eos_token_id


def test_an_end_token_is_appended_where_there_is_none_and_survives_truncation_and_saving(tmp_path: Path) -> None:
    tokenizer = e5_mistral()[1]
    before = tokenizer(TEXTS)["input_ids"]
    append_end_token(tokenizer, "somewhere")
    expected = [[*ids, 2] for ids in before]
    assert tokenizer(TEXTS)["input_ids"] == expected
    cut = tokenizer(TEXTS, truncation=True, max_length=6)["input_ids"]
    assert cut == [[*ids[:5], 2] for ids in before]
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXTS)["input_ids"] == expected


def test_a_tokenizer_that_makes_its_rules_anew_from_flags_keeps_its_end_token(tmp_path: Path) -> None:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "▁a": 5}
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=[("▁", "a")], add_bos_token=True, add_eos_token=False)
    assert tokenizer("a a")["input_ids"] == [1, 5, 5]
    append_end_token(tokenizer, "somewhere")
    assert tokenizer("a a")["input_ids"] == [1, 5, 5, 2]
    tokenizer.save_pretrained(tmp_path)
    assert LlamaTokenizer.from_pretrained(tmp_path)("a a")["input_ids"] == [1, 5, 5, 2]


def test_a_tokenizer_that_ends_texts_already_is_left_alone() -> None:
    tokenizer = qwen3_embedding()[1]
    before = tokenizer.backend_tokenizer.to_str()
    append_end_token(tokenizer, "somewhere")
    assert tokenizer.backend_tokenizer.to_str() == before


def test_a_tokenizer_without_eos_is_refused() -> None:
    tokenizer = e5_mistral()[1]
    tokenizer.eos_token = None
    with pytest.raises(UserError, match=r"the tokenizer of somewhere has no EOS token .*; set model\.pooling=mean"):
        append_end_token(tokenizer, "somewhere")


def test_a_text_that_does_not_end_in_the_end_token_is_refused(make_encoder: Callable[..., Encoder]) -> None:
    encoder = make_encoder(pooling="lasttoken")  # BERT's [SEP] ends its texts
    assert encoder.encode(TEXTS, "query").shape == (12, 32)
    bare = BiEncoder(encoder.backbone, e5_mistral()[1], encoder.settings)
    with pytest.raises(UserError, match=r"text 0 ends in token .*, not in the end token .which this tokenizer lacks"):
        bare.tokenize(TEXTS, "document")
    with pytest.raises(UserError, match="text 0 ends in token"):
        bare.encode(TEXTS, "document")


@pytest.mark.parametrize("choice", ["e5-mistral-7b", "qwen3-embedding-0.6b"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_either_padding_side_gives_the_vector_of_the_text_alone(
    choice: str, side: str, chosen: Callable[..., Pretrained]
) -> None:
    encoder = chosen(choice, "model.dtype=float32").load("cpu")
    encoder.tokenizer.padding_side = side
    alone = []
    for text in TEXTS:
        ids = encoder.tokenize([text], "document").ids
        assert ids[-1] == end_token(encoder.tokenizer)
        with torch.no_grad():
            hidden = encoder.backbone(input_ids=torch.tensor(ids[None].astype(np.int64))).last_hidden_state[0, -1]
        alone.append((hidden / hidden.norm()).numpy())
    np.testing.assert_allclose(encoder.encode(TEXTS, "document"), np.stack(alone), atol=1e-5)


def test_attention_is_causal_in_decoders_unless_their_configuration_says_otherwise(
    chosen: Callable[..., Pretrained],
) -> None:
    def seen(choice: str) -> float:
        """How much the first token's vector depends on the last token."""
        backbone = chosen(choice, "model.dtype=float32").load("cpu").backbone
        ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])
        with torch.no_grad():
            hidden = backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return float((hidden[0, 0] - hidden[1, 0]).abs().max())

    assert seen("e5-mistral-7b") == seen("qwen3-embedding-0.6b") == 0
    assert seen("gte-modernbert") > 1e-6
    path = Path(str(chosen("qwen3-embedding-0.6b").path), "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"is_causal": False}))
    assert seen("qwen3-embedding-0.6b") > 1e-6


def test_sentence_transformers_reads_the_last_token_too(chosen: Callable[..., Pretrained], tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = chosen("e5-mistral-7b", "model.dtype=float32").load("cpu")
    save_encoder(encoder, tmp_path / "model")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "model"), device="cpu")
    texts = [*TEXTS, " ".join(TEXTS)]  # the last one is cut
    assert len(encoder.tokenizer(texts[-1])["input_ids"]) > encoder.max_length
    expected = theirs.encode(texts, prompt_name="document")
    np.testing.assert_allclose(encoder.encode(texts, "document"), expected, atol=1e-5)
    again = Pretrained(str(tmp_path / "model"), precision="fp32").load("cpu")
    assert again.settings.pooling == "lasttoken"
    np.testing.assert_array_equal(again.encode(texts, "document"), encoder.encode(texts, "document"))


def test_modernbert_ends_texts_with_sep() -> None:
    assert end_token(gte_modernbert()[1]) == 2
