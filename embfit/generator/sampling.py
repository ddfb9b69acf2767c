"""Sample a language model's tokens, with a temperature and from the most probable ones (nucleus, Holtzman et al. 2020).

Each sample has its own random numbers, which depend on the text's seed and the sample's number. So a sample does not
depend on the text's batch or on the number of samples, except for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embfit.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Args:
        temperatures: the temperatures of a text's samples, used in turn: of three, the first is that of the first
            sample, the fourth, and so on.
        top_p: tokens are drawn from the most probable ones whose probabilities add up to this.
        top_k: tokens are drawn from at most this many of the most probable ones.
        max_tokens: the most tokens of a sample.
    """

    temperatures: Sequence[float] = (0.5, 0.7, 1.0)
    top_p: float = 0.95
    top_k: int = 256
    max_tokens: int = 48

    def temperature(self, sample: int) -> float:
        """Return the temperature of a text's sample."""
        return self.temperatures[sample % len(self.temperatures)]


@dataclass(frozen=True)
class Sample:
    """A continuation.

    Args:
        tokens: its tokens, including the one that ended it.
        log_probability: the mean log-probability of its tokens at temperature 1.
        finished: whether it ended before the limit of tokens.
    """

    tokens: Sequence[int]
    log_probability: float
    finished: bool


class Draws:
    """Tokens drawn step by step for a batch of prompts.

    Args:
        seeds: the seed of each prompt.
        count: the number of samples of each prompt.
        sampling: how tokens are drawn.
        stops: [V] bool, the tokens that end a sample.
    """

    def __init__(self, seeds: Sequence[int], count: int, sampling: Sampling, stops: Tensor) -> None:
        self.sampling, self.stops = sampling, stops
        numbers = [
            [np.random.default_rng([seed, place]).random(sampling.max_tokens, np.float32) for place in range(count)]
            for seed in seeds
        ]
        self._chances = torch.from_numpy(np.array(numbers)).to(stops.device)  # [B, k, T]
        temperatures = [max(sampling.temperature(place), 1e-4) for place in range(count)]
        self._temperatures = torch.tensor(temperatures, device=stops.device)[None, :, None]
        self._ended = torch.zeros(len(seeds), count, dtype=torch.bool, device=stops.device)
        self._tokens: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._live: list[Tensor] = []

    @property
    def all_ended(self) -> bool:
        """Whether every sample has ended."""
        return bool(self._ended.all())

    def next(self, logits: Tensor) -> Tensor:
        """Draw the next token of each sample from logits ([B, k, V]) and return the tokens ([B, k]).

        Raises:
            UserError: a logit is NaN or infinite.
        """
        step = len(self._tokens)
        logits = logits.float()
        top, places = logits.topk(min(self.sampling.top_k, logits.shape[-1]), dim=-1)  # [B, k, top_k], sorted
        if not bool(top[..., 0].isfinite().all()):  # NaN counts as the highest
            raise UserError("the language model's scores became NaN or infinite; set generator.precision=fp32")
        shares = (top / self._temperatures).softmax(-1)
        upper = shares.cumsum(-1)
        kept = shares * (upper - shares < self.sampling.top_p)  # the token that reaches top_p is among them
        upper = kept.cumsum(-1)
        target = self._chances[:, :, step, None] * upper[..., -1:]
        place = (upper <= target).sum(-1, keepdim=True).clamp(max=top.shape[-1] - 1)  # [B, k, 1]
        place = torch.minimum(place, (kept > 0).sum(-1, keepdim=True) - 1)
        tokens = places.gather(-1, place)[..., 0]
        scores = (top.gather(-1, place) - logits.logsumexp(-1, keepdim=True))[..., 0]
        self._tokens.append(tokens)
        self._scores.append(scores)
        self._live.append(~self._ended)
        self._ended = self._ended | self.stops[tokens]
        return tokens

    def samples(self) -> list[list[Sample]]:
        """Return the samples of each prompt."""
        tokens, scores, live = (torch.stack(part, -1).cpu() for part in (self._tokens, self._scores, self._live))
        lengths = live.sum(-1)  # [B, k]
        means = (scores * live).sum(-1) / lengths
        return [
            [
                Sample(
                    tokens[row, place, : int(lengths[row, place])].tolist(),
                    float(means[row, place]),
                    bool(self._ended[row, place]),
                )
                for place in range(tokens.shape[1])
            ]
            for row in range(tokens.shape[0])
        ]
