"""Model folders with random weights and real tokenizers, as the Hub has them: two layers, 32 dimensions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    MistralConfig,
    MistralModel,
    ModernBertConfig,
    ModernBertModel,
    NomicBertConfig,
    NomicBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from tests.conftest import TEXTS, new_tokenizer

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def bge_large(width: int = 1024) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """BERT as wide as bge-large, of two layers."""
    tokenizer = new_tokenizer()
    return BertModel(BertConfig(**{**SHAPE, "hidden_size": width}, vocab_size=len(tokenizer))), tokenizer


def bge_m3() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """XLM-RoBERTa: a SentencePiece-like vocabulary, positions counted from the padding id on."""
    words = Tokenizer(models.Unigram())
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        sep_token="</s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    config = XLMRobertaConfig(**SHAPE, vocab_size=len(tokenizer), pad_token_id=1, type_vocab_size=1)
    return XLMRobertaModel(config), tokenizer


def e5_mistral() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Mistral: a tokenizer that puts a token in front and none behind."""
    words = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    words.decoder = decoders.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>"]
    words.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False))
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    config = MistralConfig(
        **SHAPE, vocab_size=len(tokenizer), num_key_value_heads=2, head_dim=8, sliding_window=64, pad_token_id=None
    )
    return MistralModel(config), tokenizer


def qwen3_embedding() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Qwen3: padded on the left, and an end token behind each text that is not the one called EOS."""
    words = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    words.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="$A <|endoftext|>", pair="$A <|endoftext|> $B", special_tokens=[("<|endoftext|>", 0)]
            ),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    config = Qwen3Config(**SHAPE, vocab_size=len(tokenizer), num_key_value_heads=2, head_dim=8, eos_token_id=0)
    return Qwen3Model(config), tokenizer


def gte_modernbert() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """ModernBERT: one layer that attends to all and one that attends nearby."""
    words = byte_level(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    words.normalizer = normalizers.NFC()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
    )
    ids = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2, "pad_token_id": 3}
    config = ModernBertConfig(**SHAPE, **ids, vocab_size=len(tokenizer), local_attention=8)
    return ModernBertModel(config), tokenizer


def nomic_embed() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """NomicBERT: BERT's tokenizer, rotary positions, gated layers."""
    tokenizer = new_tokenizer()
    return NomicBertModel(NomicBertConfig(**SHAPE, vocab_size=len(tokenizer))), tokenizer


MAKERS: dict[str, Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerFast]]] = {
    "bge-large": bge_large,
    "bge-m3": bge_m3,
    "e5-mistral-7b": e5_mistral,
    "qwen3-embedding-0.6b": qwen3_embedding,
    "gte-modernbert": gte_modernbert,
    "nomic-embed": nomic_embed,
}


def new_folder(choice: str, folder: Path) -> Path:
    """Write a folder of the architecture that a choice of `model` names, the same each time."""
    torch.manual_seed(0)
    backbone, tokenizer = MAKERS[choice]()
    backbone.save_pretrained(folder)
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    if choice == "qwen3-embedding-0.6b":  # its class makes the tokenizer anew, from parts
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "Qwen2Tokenizer"}))
    return folder


def byte_level(special: list[str]) -> Tokenizer:
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return words
