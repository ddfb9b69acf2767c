"""Scores pairs by a cross-encoder on the workers of a cluster, in the same batches as on one machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from embfit.cluster import Cluster, Do
from embfit.model.cross_encoder import CrossEncoder
from embfit.model.text_pairs import TextPairs
from embfit.progress import progress

PART_TOKENS = 1 << 17  # tokens of a part: cross-encoders are deeper than encoders


@dataclass(frozen=True)
class ScoringWork:
    """The work of scoring, as workers receive it.

    Args:
        ranker: the cross-encoder.
        bf16: whether its backbone computes in bfloat16, as in the scores' fingerprint.
    """

    ranker: CrossEncoder
    bf16: bool

    def prepare(self, device: str) -> Do:
        """Return a function that scores the pairs of a part on a device."""
        return partial(_score, self.ranker.to(torch.device(device)), self.bf16)


@dataclass(frozen=True)
class ScoringPart:
    """Some batches of a plan.

    Args:
        pairs: the pairs, batch after batch.
        sizes: the number of pairs in each batch.
    """

    pairs: TextPairs
    sizes: Sequence[int]


def score_spread(
    ranker: CrossEncoder, pairs: TextPairs, cluster: Cluster, label: str | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield numbers of pairs with their scores, a part at a time: as `CrossEncoder.score_batches`.

    Args:
        ranker: the cross-encoder.
        pairs: the tokenised pairs.
        cluster: the cluster.
        label: the label of the progress; None shows none.

    Raises:
        UserError: a score is not finite, or the workers are lost.
    """
    plan = ranker.plan(pairs, torch.device(cluster.device))
    parts = max(1, min(len(plan), round(int(pairs.lengths.sum()) / PART_TOKENS)))

    def part_of_plan(number: int) -> ScoringPart:
        batches = plan[number::parts]
        return ScoringPart(pairs.alone(np.concatenate(batches)), [len(batch) for batch in batches])

    with progress(label, len(pairs), "pairs") as advance:
        for number, scores in cluster.spread(ScoringWork(ranker, ranker.computes_bf16), part_of_plan, range(parts)):
            chosen = np.concatenate(plan[number::parts])
            yield chosen, scores
            advance(len(chosen))


def _score(ranker: CrossEncoder, bf16: bool, part: ScoringPart) -> np.ndarray:
    """Return the scores of a part's pairs, [n] float32."""
    batches = np.split(np.arange(len(part.pairs)), np.cumsum(part.sizes)[:-1])
    return np.concatenate([ranker.score_batch(part.pairs, batch, bf16) for batch in batches])
