"""The cross-encoder reads a query and a document together and gives one score, for reranking, mining and teaching."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from embfit.errors import UserError
from embfit.model.fingerprint import model_fingerprint
from embfit.model.layers import evaluating, score_in_fp32, without_cache
from embfit.model.loading import DEFAULT_LENGTH, Weights, positions
from embfit.model.precision import Precision, autocast, choose_device, default_token_budget, uses_bf16
from embfit.model.settings import PairSettings
from embfit.model.text_pairs import TextPairs, read_template
from embfit.progress import progress
from embfit.tokens import Tokens, plan_batches, tokenize, tokenize_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LEAST_LENGTH = 8  # tokens of a pair, including special tokens


class CrossEncoder(nn.Module):
    """A transformers sequence-classification model that scores pairs; a higher score is more relevant.

    Args:
        backbone: gives `logits` [N, 1], or [N, 2] (not relevant, relevant), whose difference is then the score.
        tokenizer: a fast tokenizer of the same model.
        settings: the length of pairs, and the number format of the backbone.
        source: the origin of the weights, for records and messages.
        trained: whether the head was loaded; a new one scores at random.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: PairSettings,
        source: str = "",
        trained: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.settings = settings
        self.source = source
        self.trained = trained
        self.template = read_template(tokenizer)
        self._reads_types = "token_type_ids" in tokenizer.model_input_names
        self._options = without_cache(backbone)
        score_in_fp32(backbone)

    compiled = False  # transformers has no setting for it

    @classmethod
    def load(
        cls,
        path: str | Path,
        max_length: int | None = None,
        precision: Precision = "auto",
        device: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> CrossEncoder:
        """Load a trained cross-encoder.

        Args:
            path: a folder, or a name on the Hub.
            max_length: how many tokens are read of a pair; None is the model's own limit, 512 at most.
            precision: what the backbone computes in; auto is bf16 where the hardware multiplies it.
            device: what the weights are put on; `auto` is a GPU where there is one.
            revision: the branch, tag or commit on the Hub.
            trust_remote_code: whether Python code that comes with the model is run.

        Raises:
            UserError: the model cannot be found or read, or is not a cross-encoder.
        """
        weights = Weights(str(path), revision, trust_remote_code=trust_remote_code)
        return cls.load_weights(weights, max_length, precision, device)

    @classmethod
    def load_weights(
        cls,
        weights: Weights,
        max_length: int | None = None,
        precision: Precision = "auto",
        device: str = "auto",
        fresh_head: int | None = None,
    ) -> CrossEncoder:
        """Load a cross-encoder, or an encoder that becomes one.

        Args:
            weights: which they are, and how they are loaded.
            max_length: how many tokens are read of a pair; None is the model's own limit, 512 at most.
            precision: what the backbone computes in.
            device: what the weights are put on.
            fresh_head: the seed of a new head where the model, a plain encoder, has none; None refuses such a model.

        Raises:
            UserError: the model cannot be found or read, is not a cross-encoder, or does not support `max_length`.
        """
        folder = weights.find()
        backbone, tokenizer, trained = weights.load_classifier(folder, fresh_head)
        length = _length(weights.path, max_length, backbone, tokenizer)
        cross_encoder = cls(
            backbone, tokenizer, PairSettings(length, precision, weights.attention), str(folder), trained
        )
        return cross_encoder.to(choose_device(device)).eval()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def max_length(self) -> int:
        """The most tokens of a pair, including special tokens."""
        return self.settings.max_length

    @property
    def pad_id(self) -> int:
        """The padding token's id, by which a decoder finds the last token of a pair."""
        return int(self.tokenizer.pad_token_id)

    @property
    def pads_left(self) -> bool:
        """Whether the tokenizer asks for padding on the left."""
        return bool(self.tokenizer.padding_side == "left")

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, bf16: bool = False) -> Tensor:
        """Score token ids.

        Shapes:
            input_ids, attention_mask and token_type_ids [N, L] → [N] float32.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._reads_types:
            inputs["token_type_ids"] = token_type_ids
        with autocast(input_ids.device, bf16):
            logits = self.backbone(**inputs, **self._options).logits  # [N, 1] or [N, 2]
        scores: Tensor = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        return scores

    def tokenize(self, texts: Iterable[str]) -> Tokens:
        """Tokenise queries or documents, without special tokens, for `pairs`.

        A text is cut if it alone would fill a pair. If both texts are cut here and again in the pair, the odd token may
        go to the other text than in transformers, which knows the full lengths.
        """
        return tokenize(self.tokenizer, texts, self.text_length, special=False)

    def tokenize_blocks(self, texts: Iterable[str]) -> Iterator[Tokens]:
        """Tokenise like `tokenize`, a few thousand texts at a time."""
        return tokenize_blocks(self.tokenizer, texts, self.text_length, special=False)

    @property
    def text_length(self) -> int:
        """The most tokens of one text: as many as fill a pair alone."""
        return self.max_length - self.template.special

    def pairs(self, queries: Tokens, documents: Tokens, rows: np.ndarray) -> TextPairs:
        """Join tokenised texts: `rows` is [P, 2], a query row and a document row each."""
        return TextPairs(self.template, queries, documents, np.asarray(rows, np.int64).reshape(-1, 2), self.max_length)

    def score(self, pairs: Sequence[tuple[str, str]], label: str | None = None) -> np.ndarray:
        """Score (query, document) texts: [P] float32, in the order given.

        Each text is tokenised once, in however many pairs it is. Pairs of all queries are sorted by length together.

        Args:
            pairs: the texts.
            label: the label of the progress; None shows none.
        """
        return self.score_tokens(self.read(pairs), label)

    def read(self, pairs: Sequence[tuple[str, str]]) -> TextPairs:
        """Tokenise (query, document) texts, each once."""
        queries = {text: row for row, text in enumerate(dict.fromkeys(query for query, _ in pairs))}
        documents = {text: row for row, text in enumerate(dict.fromkeys(document for _, document in pairs))}
        rows = np.array([(queries[query], documents[document]) for query, document in pairs], np.int64)
        return self.pairs(self.tokenize(queries), self.tokenize(documents), rows)

    def score_tokens(self, pairs: TextPairs, label: str | None = None) -> np.ndarray:
        """Score tokenised pairs: [P] float32.

        Args:
            pairs: P tokenised pairs.
            label: the label of the progress; None shows none.
        """
        scores = np.empty(len(pairs), np.float32)
        for chosen, found in self.score_batches(pairs, label):
            scores[chosen] = found
        return scores

    def score_batches(self, pairs: TextPairs, label: str | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield numbers of pairs with their scores, a batch at a time: the longest pairs first.

        Args:
            pairs: the tokenised pairs.
            label: the label of the progress; None shows none.

        Raises:
            UserError: a score is not finite.
        """
        with progress(label, len(pairs), "pairs") as advance:
            for chosen in self.plan(pairs):
                yield chosen, self.score_batch(pairs, chosen, self.computes_bf16)
                advance(len(chosen))

    def plan(self, pairs: TextPairs, device: torch.device | None = None) -> list[np.ndarray]:
        """Return the batches, as numbers of pairs, in which pairs are scored.

        Args:
            pairs: the tokenised pairs.
            device: the device; None is that of the weights.
        """
        return plan_batches(pairs.lengths, default_token_budget(device or self.device))

    @property
    def computes_bf16(self) -> bool:
        """Whether the backbone computes in bfloat16 on its device."""
        return uses_bf16(self.settings.precision, self.device)

    @torch.inference_mode()
    def score_batch(self, pairs: TextPairs, chosen: np.ndarray, bf16: bool) -> np.ndarray:
        """Score one batch of pairs: [n] float32.

        Args:
            pairs: the tokenised pairs.
            chosen: the numbers of the pairs, [n].
            bf16: whether the backbone computes in bfloat16.

        Raises:
            UserError: a score is not finite.
        """
        inputs = (tensor.to(self.device) for tensor in pairs.padded(chosen, self.pad_id, self.pads_left))
        with evaluating(self):
            scores: np.ndarray = self(*inputs, bf16).cpu().numpy()
        if not np.isfinite(scores).all():
            raise UserError(
                f"{self.source or 'the cross-encoder'}: {np.count_nonzero(~np.isfinite(scores))} of {len(scores)} "
                "scores are no numbers; set its precision to fp32, or train it again"
            )
        return scores

    @property
    def fingerprint(self) -> str:
        """Identifies all that a score depends on besides the texts: weights, configuration, tokenizer, settings."""
        around = {
            "token_types": self._reads_types,
            "max_length": self.settings.max_length,
            "bf16": self.computes_bf16,
            "scores": "fp32",
        }
        return model_fingerprint(self, self.backbone, self.tokenizer, around)


def _length(path: str, asked: int | None, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many tokens are read of a pair.

    Raises:
        UserError: the model has fewer positions, or a pair does not fit into so few tokens.
    """
    limit = positions(backbone)
    own = min(DEFAULT_LENGTH, tokenizer.model_max_length, limit or DEFAULT_LENGTH)
    length = own if asked is None else asked
    if limit is not None and length > limit:
        raise UserError(f"max_length={length} exceeds the {limit} positions of {path}; lower max_length")
    if length < LEAST_LENGTH:
        raise UserError(f"max_length={length} leaves no room for a pair; raise it to {LEAST_LENGTH} or more")
    return length
