"""Fixtures: a two-layer encoder with a real WordPiece tokenizer, made offline, and a small collection."""

from __future__ import annotations

import logging
import os
import re
import string
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from embfit.model import (
    BiEncoder,
    CrossEncoder,
    Encoder,
    LateInteractionEncoder,
    LateInteractionSettings,
    Settings,
)
from embfit.model.cross_encoder import PairSettings
from embfit.model.projection import Projection
from embfit.records import Collection, DevQuality
from embfit.run.console import Console
from embfit.store import Store

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

TEXTS = [
    "the heart pumps blood through arteries and veins",
    "insulin lowers the sugar in the blood of a patient with diabetes",
    "a fever is a body temperature above normal, often from infection",
    "bones store calcium and protect organs; a fracture is a broken bone",
    "the lungs exchange oxygen and carbon dioxide with the blood",
    "antibiotics treat bacterial infection but not a virus",
    "the liver breaks down toxins and makes bile",
    "kidneys filter the blood and make urine",
    "vaccines prepare the immune system for a virus",
    "the brain uses a fifth of the body's energy",
    "asthma narrows the airways of the lungs and makes breathing hard",
    "high blood pressure strains the heart and damages arteries",
]


def vocabulary() -> dict[str, int]:
    """Return the special tokens, all letters, the words of the sentences and, of long ones, the halves."""
    words = sorted({word for text in TEXTS for word in re.findall(r"\w+", text)})
    halved = [word for word in words if len(word) > 8]
    halves = {half for word in halved for half in (word[: len(word) // 2], f"##{word[len(word) // 2 :]}") if half}
    letters = [piece for letter in string.printable[:62].lower() for piece in (letter, f"##{letter}")]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *letters, *sorted({*words} - {*halved}), *sorted(halves), *string.punctuation])
    return {piece: number for number, piece in enumerate(pieces)}


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer of a few sentences: the same in every process, as a trained one is not."""
    words = Tokenizer(models.WordPiece(vocabulary(), unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def new_encoder(tokenizer: PreTrainedTokenizerFast, dropout: float = 0.0, **changes: object) -> Encoder:
    """Make a two-layer encoder of 32 dimensions, the same each time; keyword arguments change its settings."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation="sdpa",
    )
    settings = {
        "pooling": "mean",
        "normalize": True,
        "max_length": 32,
        "query_prompt": "",
        "document_prompt": "",
        "precision": "fp32",
    }
    return BiEncoder(BertModel(config), tokenizer, Settings(**(settings | changes)), source="tiny").eval()


def steady(value: float) -> DevQuality:
    """Return the dev quality of a model that reaches the same nDCG@10 with each of 30 queries: any change counts."""
    return DevQuality({"ndcg@10": value}, [value] * 30)


def new_late_encoder(
    tokenizer: PreTrainedTokenizerFast, dropout: float = 0.0, **changes: object
) -> LateInteractionEncoder:
    """Make a late-interaction encoder of 16 dimensions a token on the two layers; words of theirs are its markers."""
    settings = {
        "query_marker": "q",
        "document_marker": "d",
        "query_length": 12,
        "document_length": 24,
        "training_document_length": 24,
        "expansion": "fixed",
        "attend_to_expansion": False,
        "skip": tuple(string.punctuation),
        "precision": "fp32",
    }
    backbone = new_encoder(tokenizer, dropout).backbone
    head = Projection({"in_features": 32, "out_features": 16, "bias": False, "activation_function": "Identity"})
    settings = LateInteractionSettings(**(settings | changes))
    return LateInteractionEncoder(backbone, tokenizer, settings, [head], "tiny late interaction").eval()


@pytest.fixture(autouse=True)
def _log_is_not_printed_on() -> Iterator[None]:
    """Take off the root logger what a run in the tests' own process prints its log with."""
    yield
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, Console)]:
        root.removeHandler(handler)


@pytest.fixture(scope="session", autouse=True)
def _disk_is_not_waited_for() -> Iterator[None]:
    """Leave writing to the disk to the system, except where a test is about it: thousands of files are synced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer trained on a few sentences."""
    return new_tokenizer()


@pytest.fixture
def make_encoder(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Encoder]:
    """Make a two-layer encoder of 32 dimensions, the same each time; keyword arguments change its settings."""
    return partial(new_encoder, tokenizer)


@pytest.fixture
def tiny_encoder(make_encoder: Callable[..., Encoder]) -> Encoder:
    """A two-layer encoder of 32 dimensions."""
    return make_encoder()


def new_ranker(tokenizer: PreTrainedTokenizerFast, dropout: float = 0.0, labels: int = 1) -> CrossEncoder:
    """Make a two-layer cross-encoder, the same each time."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.5,  # scores that differ
        num_labels=labels,
        attn_implementation="sdpa",
    )
    return CrossEncoder(BertForSequenceClassification(config), tokenizer, PairSettings(32, "fp32"), "tiny").eval()


@pytest.fixture
def tiny_ranker(tokenizer: PreTrainedTokenizerFast) -> CrossEncoder:
    """A two-layer cross-encoder."""
    return new_ranker(tokenizer)


def make_collection(
    documents: Mapping[str, str], queries: Mapping[str, str], qrels: Mapping[str, Mapping[str, Mapping[str, int]]]
) -> Collection:
    """Make a collection of plain texts."""
    return Collection(
        "small",
        Dataset.from_dict({"_id": list(documents), "title": [""] * len(documents), "text": list(documents.values())}),
        Dataset.from_dict({"_id": list(queries), "text": list(queries.values())}),
        qrels,
    )


def new_collection() -> Collection:
    """Make a collection of twelve documents, each with a query of its first words; two each are for dev and test."""
    documents = {f"d{row}": text for row, text in enumerate(TEXTS)}
    queries = {f"q{row}": " ".join(text.split()[:4]) for row, text in enumerate(TEXTS)}
    splits = {"train": range(8), "dev": range(8, 10), "test": range(10, 12)}
    qrels = {split: {f"q{row}": {f"d{row}": 1} for row in rows} for split, rows in splits.items()}
    return make_collection(documents, queries, qrels)


@pytest.fixture
def small_collection() -> Collection:
    """Twelve documents, each with a query of its first words; eight for training, two each for dev and test."""
    return new_collection()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real collections; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("EMBFIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no collections in {folder}; EMBFIT_DATA=DIR names their folder (CONTRIBUTING.md)")
    return folder


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of small inputs that went wrong; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("EMBFIT_CASES", Path(__file__).parents[2] / "shared" / "cases"))
    if not folder.is_dir():
        pytest.skip(f"no cases in {folder}; EMBFIT_CASES=DIR names their folder (CONTRIBUTING.md)")
    return folder
