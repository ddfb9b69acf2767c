"""Cross-encoders on disk: sequence-classification folders, which transformers and sentence-transformers load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from embfit.errors import UserError, first_line
from embfit.model.cross_encoder import CrossEncoder, PairSettings
from embfit.model.folder import HEAD, Attention
from embfit.model.precision import Precision
from embfit.model.pretrained import DEFAULT_LENGTH, positions
from embfit.model.source import find_model
from embfit.store import replacing_folder

LEAST_LENGTH = 8  # a pair with its special tokens


def load_ranker(
    path: str,
    max_length: int | None = None,
    precision: Precision = "auto",
    attention: Attention = "auto",
    revision: str | None = None,
    packages: Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
    fresh_head: int | None = None,
) -> CrossEncoder:
    """Load a cross-encoder onto the CPU, with fp32 weights.

    Args:
        path: a folder, or a name on the Hub.
        max_length: tokens read of a pair; None is the model's own limit, 512 at most.
        precision: of the computation.
        attention: transformers' implementation; auto is SDPA, and plain products where a CPU trains.
        revision: branch, tag or commit on the Hub.
        packages: name on the Hub → Python package that carries its files, used when installed.
        trust_remote_code: run Python code that comes with the model.
        fresh_head: seed of a new head where the model, a plain encoder, has none; None refuses such a model.

    Raises:
        UserError: it cannot be found or read, it is no ranker, or `max_length` is not possible.
    """
    folder = find_model(path, revision, packages)
    config = _config(folder, trust_remote_code)
    trained = any(name.endswith(HEAD) for name in config.architectures or ())
    if not trained and fresh_head is None:
        raise UserError(
            f"{path} is an encoder without a classification head, so its scores would be random;\n"
            "train it first (task=finetune model=cross-encoder model.path=...), or name a ranker"
        )
    if trained and config.num_labels not in (1, 2):
        raise UserError(f"{path} tells {config.num_labels} classes apart; a ranker has one score, or two classes")
    if not trained:
        config.num_labels = 1
    backbone, tokenizer = _read(folder, config, attention, trust_remote_code, fresh_head or 0)
    settings = PairSettings(_length(path, max_length, backbone, tokenizer), precision, attention)
    return CrossEncoder(backbone, tokenizer, settings, str(folder), trained).eval()


def save_ranker(ranker: CrossEncoder, folder: Path) -> None:
    """Write a cross-encoder as a folder that transformers and sentence-transformers' `CrossEncoder` load.

    It is written whole, or not at all; a model that is there already is replaced.

    Raises:
        OSError: the folder cannot be written; what was there is still there.
    """
    with replacing_folder(folder) as unfinished:
        # a score is a logit here; sentence-transformers would put a sigmoid on it
        ranker.backbone.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
        ranker.backbone.save_pretrained(unfinished)
        ranker.tokenizer.model_max_length = ranker.max_length
        ranker.tokenizer.backend_tokenizer.no_truncation()  # else tokenizer.json carries the last batch's along
        ranker.tokenizer.backend_tokenizer.no_padding()
        ranker.tokenizer.save_pretrained(unfinished)


def _config(folder: Path, trust_remote_code: bool) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: transformers cannot read config.json: {first_line(error)}") from error


def _read(
    folder: Path, config: Any, attention: Attention, trust_remote_code: bool, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers does not type it
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # a fresh head is said by embfit
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of a fresh head
            backbone = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                attn_implementation="sdpa" if attention == "auto" else attention,
                trust_remote_code=trust_remote_code,
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: transformers cannot load it as a ranker: {first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    if not tokenizer.is_fast:
        raise UserError(f"{folder}: its tokenizer has no fast (tokenizer.json) form, which embfit needs")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"{folder}: its tokenizer has neither a padding nor an end token, so pairs cannot be batched"
            )
        tokenizer.pad_token = tokenizer.eos_token
    backbone.config.pad_token_id = tokenizer.pad_token_id  # decoders look for the last token before the padding
    return backbone, tokenizer


def _length(path: str, asked: int | None, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    limit = positions(backbone)
    own = min(DEFAULT_LENGTH, tokenizer.model_max_length, limit or DEFAULT_LENGTH)
    length = own if asked is None else asked
    if limit is not None and length > limit:
        raise UserError(f"max_length={length} exceeds the {limit} positions of {path}; lower max_length")
    if length < LEAST_LENGTH:
        raise UserError(f"max_length={length} leaves no room for a pair; raise it to {LEAST_LENGTH} or more")
    return length
