"""Find, identify and load small language models that write queries in this process, through transformers."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embfit.atomic_files import FileFacts
from embfit.errors import UserError, first_line
from embfit.generator.decoding import ATTENTION
from embfit.model.location import UNKNOWN, find_model
from embfit.model.precision import Precision, choose_device, uses_bf16
from embfit.store import Store

log = logging.getLogger(__name__)

READ = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja")  # files that a model depends on
GGUF_VERSION = 1  # of converted GGUF weights in the store


@dataclass(frozen=True)
class ModelFiles:
    """A language model's files, not loaded yet.

    Args:
        name: the user's name for the model.
        folder: a transformers folder.
        digest: identifies weights, configuration and tokenizer.
    """

    name: str
    folder: Path
    digest: str

    @classmethod
    def find(cls, path: str, revision: str | None, gguf: str | None, store: Store) -> ModelFiles:
        """Find a model; GGUF weights are converted into a transformers folder in the store, once.

        Args:
            path: a folder, a `.gguf` file, or a name on the Hub.
            revision: branch, tag or commit on the Hub.
            gguf: the name of the GGUF file in the folder or on the Hub; None for a model in transformers' own form.
            store: keeps converted GGUF weights.

        Raises:
            UserError: there is no such model, or GGUF cannot be read.
        """
        file = Path(path).expanduser()
        if file.suffix == ".gguf" or gguf is not None:
            found = _gguf_file(path, revision, gguf)
            digest = FileFacts.of(found).sha256
            folder = store.entry(
                "language-models", {"gguf": digest}, lambda entry: convert_gguf(found, entry), version=GGUF_VERSION
            )
            return cls(path if gguf is None else f"{path}/{gguf}", folder, digest)
        folder = find_model(path, revision)
        return cls(path, folder, _folder_digest(folder))

    def load(self, device: str = "auto", precision: Precision = "auto") -> LanguageModel:
        """Load the model for writing.

        Raises:
            UserError: it cannot be loaded, or it has layers whose cache samples cannot share.
        """
        where = choose_device(device)
        dtype = torch.bfloat16 if uses_bf16(precision, where) else torch.float32
        model, tokenizer, is_seq_to_seq = load_language_model(self.folder, dtype)
        return LanguageModel(self.name, model.to(where).eval(), tokenizer, is_seq_to_seq)


@dataclass(frozen=True)
class LanguageModel:
    """A language model and its tokenizer.

    Args:
        name: the user's name for it.
        model: transformers' model.
        tokenizer: its tokenizer.
        is_seq_to_seq: whether it has an encoder and a decoder.
    """

    name: str
    model: Any
    tokenizer: Any
    is_seq_to_seq: bool

    @property
    def parameters(self) -> int:
        """The number of its weights."""
        return sum(weight.numel() for weight in self.model.parameters())

    @cached_property
    def stops(self) -> Tensor:
        """The tokens that end a query: those with a line break, and the end of a text ([V] bool)."""
        size = self.model.get_output_embeddings().weight.shape[0]
        known = min(size, len(self.tokenizer))
        texts = self.tokenizer.batch_decode([[token] for token in range(known)])
        found = torch.zeros(size, dtype=torch.bool)
        found[:known] = torch.tensor(["\n" in text for text in texts])
        ends = self.model.generation_config.eos_token_id if self.model.generation_config else None
        for end in [*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id]:
            if end is not None and end < size:
                found[end] = True
        return found.to(next(self.model.parameters()).device)

    def read(self, tokens: Any) -> str:
        """Return the first line of the text of some tokens."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return " ".join(text.strip().partition("\n")[0].split())


def load_language_model(folder: Path, dtype: torch.dtype) -> tuple[Any, Any, bool]:
    """Load a model and its tokenizer; return them, and whether the model has an encoder and a decoder.

    Raises:
        UserError: it cannot be loaded, or it has layers whose cache samples cannot share.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    _hide_progress_bars()
    try:
        config = AutoConfig.from_pretrained(folder)
        is_seq_to_seq = bool(config.is_encoder_decoder)
        kind = AutoModelForSeq2SeqLM if is_seq_to_seq else AutoModelForCausalLM
        model = kind.from_pretrained(folder, dtype=dtype, attn_implementation="eager" if is_seq_to_seq else "sdpa")
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise UserError(f"{folder}: no language model that transformers can load ({first_line(error)})") from error
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
    if strange := sorted(kinds - set(ATTENTION)):
        raise UserError(
            f"{folder}: samples cannot share the cache of its {strange[0]} layers; serve the model, and use "
            "generator=api"
        )
    return model, tokenizer, is_seq_to_seq


def check_length(model: Any, name: str, longest: int, document_tokens: int) -> None:
    """Check that a model has positions for the longest text that it reads and writes.

    Beyond its last position a model crashes or writes nonsense, depending on its kind of position embeddings.

    Args:
        model: transformers' model.
        name: the user's name for it.
        longest: the number of tokens of the longest prompt and its continuation.
        document_tokens: the setting that can be lowered, for the message.

    Raises:
        UserError: the model has fewer positions.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and longest > limit:
        raise UserError(
            f"{name} has positions for {limit:,} tokens, and a prompt with its query has {longest:,}; lower "
            f"generator.document_tokens={document_tokens}, or show fewer examples"
        )


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the model of a GGUF file as a transformers folder, in bfloat16.

    `save_pretrained` refuses a model that was loaded from GGUF (transformers 5.23), although its weights are dense. So
    they are copied into a model that is created from the configuration.

    Raises:
        UserError: the package gguf is not installed, or the file cannot be read.
    """
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"{file}: reading GGUF needs the package gguf: pip install 'embfit[gguf]'")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _hide_progress_bars()
    log.info("converting %s, once: the store keeps its weights", file.name)
    try:
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, IndexError, struct.error) as error:
        raise UserError(f"{file}: no GGUF file that transformers can read ({first_line(error)})") from error
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    untyped: Any = AutoModelForCausalLM
    plain = untyped.from_config(config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict())
    plain.tie_weights()
    plain.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _hide_progress_bars() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers does not type it


def _gguf_file(path: str, revision: str | None, gguf: str | None) -> Path:
    file = Path(path).expanduser()
    local = file / gguf if gguf is not None and file.is_dir() else file
    if local.is_file():
        return local
    if gguf is None or path.startswith((".", "/", "~")) or file.is_dir():
        raise UserError(f"{local}: there is no such GGUF file")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(path, gguf, revision=revision))
    except EntryNotFoundError as error:
        raise UserError(f"{path} has no file {gguf}") from error
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise UserError(UNKNOWN.format(path)) from error


def _folder_digest(folder: Path) -> str:
    found = hashlib.sha256()
    for file in sorted({file for pattern in READ for file in folder.glob(pattern)}):
        found.update(f"{file.name} {FileFacts.of(file).sha256}\n".encode())
    return found.hexdigest()
