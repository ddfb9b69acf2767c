"""Several continuations of each of many texts, with every text read once.

- A prefix that all texts share, such as few-shot examples, is read once; all batches reuse its keys and values.
- Each text is read once for all of its samples. The samples of a text share one row of the batch: a step decodes one
  token of each, and a mask lets a token attend to its text and its own sample. So the cache is not copied for samples.
- `sampling.py` draws the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from embfit.generator.sampling import Draws, Sample, Sampling

ATTENTION = ("full_attention", "sliding_attention")  # kinds of layers whose cache can be shared by samples


@dataclass(frozen=True)
class Prompt:
    """A text to continue.

    Args:
        tokens: the text, without the prefix that all texts share.
        seed: the seed of its continuations.
    """

    tokens: Sequence[int]
    seed: int


class Decodes(Protocol):
    """Draws continuations of texts."""

    def sample(self, prompts: Sequence[Prompt], count: int, sampling: Sampling) -> list[list[Sample]]:
        """Return `count` continuations of each prompt."""


class CausalDecoding:
    """Draws continuations by a causal language model.

    Args:
        model: the model, in evaluation mode.
        stops: [V] bool, the tokens that end a sample.
        prefix: the tokens before every prompt; may be empty.
    """

    def __init__(self, model: Any, stops: Tensor, prefix: Sequence[int] = ()) -> None:
        self.model, self.stops = model, stops
        self.device = next(model.parameters()).device
        self.prefix = list(prefix)
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
        self.window = model.config.get_text_config().sliding_window if "sliding_attention" in kinds else None
        self._read = self._read_prefix() if self.prefix else None

    @torch.inference_mode()
    def sample(self, prompts: Sequence[Prompt], count: int, sampling: Sampling) -> list[list[Sample]]:
        """Return `count` continuations of each prompt; prompts of similar lengths need the least padding."""
        logits, cache, lengths, width = self._read_prompts(prompts)
        draws = Draws([prompt.seed for prompt in prompts], count, sampling, self.stops)
        before = len(self.prefix) + width
        seen = self._seen(lengths, width)[:, None]  # [B, 1, before]
        own = torch.eye(count, dtype=torch.bool, device=self.device).expand(len(prompts), count, count)
        visible = seen.expand(-1, count, -1)
        tokens = draws.next(logits[:, None].expand(-1, count, -1))  # [B, k]
        for step in range(1, sampling.max_tokens):
            if draws.all_ended:
                break
            visible = torch.cat([visible, own], dim=2)  # [B, k, before + step * k]
            places = (len(self.prefix) + lengths + step - 1)[:, None].expand(-1, count)  # [B, k]
            columns = self._places(lengths, width, count, step)
            output = self.model(
                input_ids=tokens,
                attention_mask=self._mask(visible, places, columns),
                position_ids=places,
                past_key_values=cache,
                cache_position=torch.arange(before + (step - 1) * count, before + step * count, device=self.device),
                use_cache=True,
            )
            tokens = draws.next(output.logits)
        return draws.samples()

    def _read_prefix(self) -> list[tuple[Tensor, Tensor]]:
        """Return the prefix's keys and values of each layer ([1, H, P, D])."""
        from transformers import DynamicCache

        with torch.inference_mode():
            cache = DynamicCache()  # without a config, sliding layers keep all tokens; the mask limits their window
            tokens = torch.tensor([self.prefix], device=self.device)
            places = torch.arange(len(self.prefix), device=self.device)[None]
            causal = places[:, :, None] >= places[:, None, :]
            self.model(
                input_ids=tokens,
                attention_mask=self._mask(causal, places, places),
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        layers: list[Any] = list(cache.layers)
        return [(layer.keys, layer.values) for layer in layers]

    def _read_prompts(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Any, Tensor, int]:
        """Read a batch of prompts, padded on the left.

        Returns:
            The logits after each ([B, V]), the cache, the prompts' lengths ([B]) and the longest of them.
        """
        from transformers import DynamicCache

        lengths = torch.tensor([len(prompt.tokens) for prompt in prompts], device=self.device)
        width = int(lengths.max())
        tokens = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, width - len(prompt.tokens) :] = torch.tensor(prompt.tokens)
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self._read or ()):
            shared = (keys.expand(len(prompts), -1, -1, -1), values.expand(len(prompts), -1, -1, -1))
            cache.update(*shared, number)
        before = len(self.prefix)
        columns = self._places(lengths, width, 0, 1)  # [B, P + L]
        places = columns[:, before:]  # [B, L]
        visible = self._seen(lengths, width)[:, None] & (columns[:, None, :] <= places[:, :, None])  # [B, L, P + L]
        padding = places < before  # a padded token attends to itself, so that no row is masked completely
        visible[:, :, before:] |= torch.eye(width, dtype=torch.bool, device=self.device) & padding[:, :, None]
        output = self.model(
            input_ids=tokens.to(self.device),
            attention_mask=self._mask(visible, places.clamp(min=0), columns),
            position_ids=places.clamp(min=0),
            past_key_values=cache,
            cache_position=torch.arange(before, before + width, device=self.device),
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1], cache, lengths, width

    def _seen(self, lengths: Tensor, width: int) -> Tensor:
        """Return which columns of prefix and prompts hold tokens ([B, P + L] bool)."""
        real = torch.arange(width, device=self.device) >= (width - lengths)[:, None]
        return torch.cat([real.new_ones(len(lengths), len(self.prefix)), real], dim=1)

    def _places(self, lengths: Tensor, width: int, count: int, steps: int) -> Tensor:
        """Return the position of each column: prefix, prompt, and `count` samples a step ([B, columns])."""
        before = len(self.prefix)
        prefix = torch.arange(before, device=self.device).expand(len(lengths), -1)
        prompt = before + torch.arange(width, device=self.device) - (width - lengths)[:, None]
        prompt = torch.where(prompt < before, before - 1 - width, prompt)  # padding is outside any window
        steps_of = torch.arange(steps, device=self.device).repeat_interleave(count)  # [steps * k]
        return torch.cat([prefix, prompt, before + lengths[:, None] + steps_of], dim=1)

    def _mask(self, visible: Tensor, places: Tensor, columns: Tensor) -> Any:
        """Return the mask that is added to attention scores ([B, 1, queries, columns]); one for each kind of layer."""
        dtype = next(self.model.parameters()).dtype
        full = _additive(visible, dtype)
        if self.window is None:
            return full
        near = places[:, :, None] - columns[:, None, :] < self.window
        return {"full_attention": full, "sliding_attention": _additive(visible & near, dtype)}


class SeqToSeqDecoding:
    """Draws continuations by an encoder and a decoder, such as T5: a text is encoded once for all of its samples.

    Args:
        model: the model, in evaluation mode.
        stops: [V] bool, the tokens that end a sample.
    """

    def __init__(self, model: Any, stops: Tensor) -> None:
        self.model, self.stops = model, stops
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def sample(self, prompts: Sequence[Prompt], count: int, sampling: Sampling) -> list[list[Sample]]:
        """Return `count` continuations of each prompt."""
        width = max(len(prompt.tokens) for prompt in prompts)
        tokens = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt.tokens)] = torch.tensor(prompt.tokens)
            mask[row, : len(prompt.tokens)] = 1
        tokens, mask = tokens.to(self.device), mask.to(self.device)
        encoded = self.model.get_encoder()(input_ids=tokens, attention_mask=mask, return_dict=True)
        encoded.last_hidden_state = encoded.last_hidden_state.repeat_interleave(count, dim=0)
        mask = mask.repeat_interleave(count, dim=0)  # [B * k, L]
        draws = Draws([prompt.seed for prompt in prompts], count, sampling, self.stops)
        rows = len(prompts) * count
        written = torch.full((rows, 1), self.model.config.decoder_start_token_id, device=self.device)
        cache = None
        for _ in range(sampling.max_tokens):
            output = self.model(
                encoder_outputs=encoded,
                attention_mask=mask,
                decoder_input_ids=written,
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            written = draws.next(output.logits[:, -1].view(len(prompts), count, -1)).view(rows, 1)
            if draws.all_ended:
                break
        return draws.samples()


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where a token is visible, and the lowest number elsewhere ([B, 1, queries, columns])."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill(~visible, torch.finfo(dtype).min)[:, None]
