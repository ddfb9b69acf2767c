"""Loads weights and tokenizers through transformers, for encoders and cross-encoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from tokenizers.normalizers import Lowercase, Sequence

from embfit.errors import UserError, first_line
from embfit.model.folder import HEAD
from embfit.model.location import check_digest, find_base, find_here, find_model
from embfit.model.lora import load_adapter, read_base
from embfit.model.settings import Attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_LENGTH = 512  # the most tokens if neither the configuration nor the model says
FAILURES = (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class Weights:
    """The source of weights, and the settings for loading them.

    Args:
        path: a folder, or a name on the Hub.
        revision: the branch, tag or commit on the Hub; None is the newest.
        packages: name on the Hub → Python package that carries its files, used when installed.
        sha256: the required digest of `model.safetensors`; None accepts any.
        dtype: the number format of the weights.
        attention: transformers' implementation of attention; auto is SDPA.
        trust_remote_code: whether to run Python code that comes with the model.
    """

    path: str
    revision: str | None = None
    packages: Mapping[str, str] | None = None
    sha256: str | None = None
    dtype: torch.dtype = torch.float32
    attention: Attention = "auto"
    trust_remote_code: bool = False

    def find(self) -> Path:
        """Return the local folder of the weights.

        Raises:
            UserError: it does not exist, or its weights have another digest.
        """
        folder = find_model(self.path, self.revision, self.packages)
        if self.sha256 is not None:
            check_digest(folder, self.sha256)
        return folder

    def load(self, folder: Path, quiet: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load a backbone that gives hidden states, with its adapter if it has one, and its tokenizer.

        Args:
            folder: the folder that `find` returned.
            quiet: whether to suppress transformers' warnings, such as of weights that are not the backbone's.

        Raises:
            UserError: transformers cannot load it.
        """
        from transformers import AutoModel  # takes seconds to import

        base = read_base(folder)
        with _refusals(self.path, folder, "it", quiet):
            backbone = AutoModel.from_pretrained(
                folder if base is None else find_base(folder, *base), **self._how_to_load
            )
            if base is not None:
                load_adapter(backbone, folder)
        return backbone, self._tokenizer(folder)

    def hidden_size(self, folder: Path) -> int:
        """Return the dimensions of the backbone's hidden states, by the configuration in a folder from `find`.

        Raises:
            UserError: transformers cannot read the configuration.
        """
        base = read_base(folder)
        config = self._config(folder if base is None else find_base(folder, *base))
        return int(config.get_text_config().hidden_size)

    def without_weights(self) -> PreTrainedModel:
        """Make the backbone of `load` from its configuration only, with arbitrary weights.

        Raises:
            UserError: transformers cannot read the configuration, or does not know the model.
        """
        from transformers import AutoModel  # takes seconds to import

        place = find_here(self.path, self.revision, self.packages) or Path(
            self.path
        )  # transformers downloads from the Hub
        config = self._config(place)
        with _refusals(self.path, place, "it", quiet=True):
            model: PreTrainedModel = AutoModel.from_config(  # type: ignore[no-untyped-call]  # transformers does not
                config, **self._how_to_load
            )
        return model

    def load_classifier(
        self, folder: Path, fresh_head: int | None
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, bool]:
        """Load a backbone that gives a pair's logits, and its tokenizer; also return whether its head was loaded.

        Args:
            folder: the folder that `find` returned.
            fresh_head: the seed of a new head where the model, a plain encoder, has none; None refuses such a model.

        Raises:
            UserError: transformers cannot load it, or it is not a cross-encoder.
        """
        from transformers import AutoModelForSequenceClassification  # takes seconds to import

        config = self._config(folder)
        trained = any(name.endswith(HEAD) for name in config.architectures or ())
        if not trained:
            if fresh_head is None:
                raise UserError(
                    f"{self.path} is an encoder without a classification head, so its scores would be random;\n"
                    "train it first (task=finetune model=cross-encoder model.path=...), or name a ranker"
                )
            config.num_labels = 1
        elif config.num_labels not in (1, 2):
            raise UserError(
                f"{self.path} tells {config.num_labels} classes apart; a ranker has one score, or two classes"
            )
        with _refusals(self.path, folder, "it as a ranker", quiet=True), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                fresh_head or 0
            )  # only the CPU's generator, which is restored afterwards
            backbone = AutoModelForSequenceClassification.from_pretrained(folder, config=config, **self._how_to_load)
        tokenizer = self._tokenizer(folder)
        backbone.config.pad_token_id = tokenizer.pad_token_id  # decoders look for the last token before the padding
        return backbone, tokenizer, trained

    @property
    def _how_to_load(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,  # transformers 5 otherwise uses the checkpoint's
            "attn_implementation": "sdpa" if self.attention == "auto" else self.attention,
            "trust_remote_code": self.trust_remote_code,
        }

    def _config(self, folder: Path) -> Any:
        from transformers import AutoConfig  # takes seconds to import

        with _refusals(self.path, folder, "config.json"):
            return AutoConfig.from_pretrained(folder, revision=self.revision, trust_remote_code=self.trust_remote_code)

    def _tokenizer(self, folder: Path) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer  # takes seconds to import

        with _refusals(self.path, folder, "its tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=self.trust_remote_code)
        if not tokenizer.is_fast:
            raise UserError(f"{self.path}: its tokenizer has no fast (tokenizer.json) form, which embfit needs")
        if tokenizer.pad_token_id is None:  # batches need a padding token; it is masked, so any token will do
            chosen = tokenizer.eos_token or tokenizer.unk_token
            if chosen is None:
                raise UserError(
                    f"{self.path}: its tokenizer has neither a padding nor an end token, so texts cannot be batched"
                )
            tokenizer.pad_token = chosen
        return tokenizer


def lower_case(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a fast tokenizer convert texts to lower case first; the change is saved with it.

    Args:
        tokenizer: the tokenizer, which is changed in place unless it already does so.
    """
    rules = tokenizer.backend_tokenizer
    steps = [] if rules.normalizer is None else [rules.normalizer]
    if steps and isinstance(steps[0], Sequence):
        steps = [*steps[0]]  # type: ignore[misc]  # iterable, which its stub does not say
    if not any(isinstance(step, Lowercase) or getattr(step, "lowercase", False) for step in steps):
        rules.normalizer = Sequence([Lowercase(), *steps])


def positions(backbone: PreTrainedModel) -> int | None:
    """Return the longest input the position embeddings allow, if they limit it."""
    config: Any = backbone.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    # RoBERTa's family counts positions from the padding id on, so the first ones are never used
    offset = (
        config.pad_token_id + 1
        if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "mpnet")
        else 0
    )
    return int(positions) - int(offset)


@contextmanager
def _refusals(path: str, folder: Path, what: str, quiet: bool = False) -> Iterator[None]:
    """Turn transformers' errors into one line; `quiet` suppresses its warnings, such as of a new head."""
    from transformers.utils import logging as transformers_logging  # takes seconds to import

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers does not type it
    if quiet:
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    except FAILURES as error:
        raise UserError(f"{path}: transformers cannot load {what} from {folder}: {first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
