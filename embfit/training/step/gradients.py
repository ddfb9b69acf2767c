"""The gradient of one batch's loss: everything between a batch's inputs and the gradients of all weights.

`BatchGradients.compute` reads top to bottom:
1. inputs are sorted by length and cut into micro-batches under a fixed token budget, so results do not depend on how
   much memory is free; several ranks share out the micro-batches of one plan, so n ranks of batch B do what one does of
   n x B;
2. each rank encodes its micro-batches; memory decides only how many of them keep their graph (`gradient_cache`). The
   encoder computes in bf16 where the hardware does, everything after it in fp32; weights are fp32. All ranks gather
   sharded weights in each pass, so a rank with fewer micro-batches than another makes idle passes;
3. the outputs of all ranks are summed into one flat tensor, on which every rank computes the whole loss;
4. the loss's gradient on the outputs goes back through the rank's own micro-batches;
5. the ranks sum the weights' gradients.

Random numbers are drawn per (seed, step, micro-batch), so a step that is computed again is the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from embfit.device_transfer import to_device
from embfit.model import CrossEncoder, Encoder
from embfit.model.precision import Precision
from embfit.model.random_state import random_state
from embfit.ragged import lengths_of, places_of
from embfit.tokens import padding_share, plan_batches
from embfit.training.ranks.collectives import Ranks
from embfit.training.ranks.units import shard_size
from embfit.training.step.backbone import training_backbone
from embfit.training.step.gradient_cache import CachedEncoding
from embfit.training.step.loss_parts import LossPart
from embfit.training.step.memory import GIGABYTE, GraphLimit, free_bytes, measure_graph

Trained: TypeAlias = Encoder | CrossEncoder
"""What can be trained in micro-batches."""


@dataclass(frozen=True)
class ComputeSettings:
    """How a step is computed. Dropout, precision and seed change what is learnt, the others its last digits at most.

    Args:
        token_budget: padded tokens that a micro-batch holds at most.
        memory_gb: gigabytes that kept graphs may take; None is half of what is free when training starts. It changes no
            bit on a CPU.
        dropout: whether the encoder's dropout is on.
        precision: the number format in which the encoder computes.
        seed: decides order, drawing and dropout.
        gradient_checkpointing: whether layers keep their inputs alone, and compute the rest again.
    """

    token_budget: int
    memory_gb: float | None
    dropout: bool
    precision: Precision
    seed: int
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class Inputs:
    """The inputs of one step, N texts or pairs of texts.

    Args:
        lengths: [N] tokens of each input.
        encode: returns the outputs of some inputs, given their numbers: [n] → [v, ...], in the order of the numbers.
        shape: the shape of one output: a vector's width, or nothing for a score.
        starts: [N + 1] int64, where each input's outputs begin among the outputs of all; None means one output each.
    """

    lengths: np.ndarray
    encode: Callable[[np.ndarray], Tensor]
    shape: tuple[int, ...] = ()
    starts: np.ndarray | None = None

    @property
    def outputs(self) -> int:
        """How many outputs all inputs have together (V)."""
        return len(self.lengths) if self.starts is None else int(self.starts[-1])

    @property
    def shortest(self) -> np.ndarray:
        """The number of the shortest input ([1])."""
        return np.array([self.lengths.argmin()])

    def places(self, inputs: np.ndarray) -> np.ndarray:
        """Return where the outputs of some inputs are among those of all, one input after the other."""
        return inputs if self.starts is None else places_of(self.starts, inputs)

    def sizes(self, micro_batches: list[np.ndarray]) -> list[int]:
        """Return the number of outputs of each micro-batch."""
        if self.starts is None:
            return [len(inputs) for inputs in micro_batches]
        return [int(lengths_of(self.starts, inputs).sum()) for inputs in micro_batches]

    def areas(self, micro_batches: list[np.ndarray]) -> list[int]:
        """Return the padded tokens of each micro-batch."""
        return [len(inputs) * int(self.lengths[inputs].max()) for inputs in micro_batches]


@dataclass(frozen=True)
class BatchLoss:
    """What one batch gave.

    Args:
        loss: the loss of the whole batch, a detached scalar.
        correct: how many positives score above all their negatives, a scalar.
        padding: the share of the computed area that was padding.
    """

    loss: Tensor
    correct: Tensor
    padding: float


class BatchGradients:
    """Gives every trained weight its gradient of a batch's loss.

    Args:
        encoder: makes the outputs.
        loss: a module whose parameters are trained as well.
        compute: says how a step is computed.
        ranks: the processes that train together.
        resumed: whether training resumes from a checkpoint, so that AdamW has its two moments already.
    """

    def __init__(
        self, encoder: Trained, loss: nn.Module, compute: ComputeSettings, ranks: Ranks, resumed: bool = False
    ) -> None:
        self.encoder = encoder
        self.loss = loss
        self.settings = compute
        self.ranks = ranks
        self.resumed = resumed
        self._graphs: GraphLimit | None = None  # of what is free when training starts

    def compute(self, inputs: Inputs, loss: Callable[[Tensor], Iterable[LossPart]], step: int) -> BatchLoss:
        """Give every weight its gradient of a batch's loss.

        Args:
            inputs: the batch's inputs, which this rank encodes its share of.
            loss: is given all outputs ([V, ...]) and returns parts whose sum is the loss; each part is done with before
                the next is asked for.
            step: the number of optimizer steps taken before this one, which seeds dropout.
        """
        plan = plan_batches(inputs.lengths, self.settings.token_budget)
        areas = inputs.areas(plan)
        mine = self.ranks.share(areas)  # numbers in the plan, which seed dropout on any rank
        own = [plan[number] for number in mine]
        idle = self.ranks.passes(areas) - len(own) if self.ranks.sharded else 0
        passes = own + [inputs.shortest] * idle  # the outputs of idle passes are not used: their gradient is 0
        numbers = mine + [len(plan)] * idle
        device = self.encoder.device
        with training_backbone(self.encoder, self.settings.gradient_checkpointing):
            encoding = CachedEncoding[np.ndarray](inputs.encode, lambda row: self._seeded(step, numbers[row]))
            found = encoding.forward(passes, keep=self._kept(inputs, passes, step))

            outputs = torch.zeros(inputs.outputs, *inputs.shape, device=device)  # [V, ...]
            places = np.concatenate([np.zeros(0, np.int64), *map(inputs.places, own)])
            order = to_device(torch.from_numpy(places), device)
            if own:  # a small batch leaves a rank without
                outputs[order] = torch.cat(found[: len(own)])
            self.ranks.sum(outputs)  # each input was encoded by one rank
            outputs.requires_grad_()

            value, correct = torch.zeros((), device=device), torch.zeros((), device=device)
            seed = self._seed(step, len(plan))
            with random_state(seed, torch.device("cpu")):  # a loss may draw: all ranks the same
                for part in loss(outputs):
                    torch.autograd.backward(part.loss)
                    value += part.loss.detach()
                    correct += part.correct
            if outputs.grad is None:
                raise RuntimeError(f"{type(self.loss).__name__} does not depend on the encoder's outputs")
            gradients = torch.split(outputs.grad[order], inputs.sizes(own)) if own else ()
            encoding.backward([*gradients, *map(torch.zeros_like, found[len(own) :])])
        self._sum_over_ranks()
        return BatchLoss(value, correct, padding_share(inputs.lengths, plan))

    def trained(self) -> list[nn.Parameter]:
        """Return the weights that training moves, the encoder's and the loss's."""
        return [*_trained(self.encoder), *_trained(self.loss)]

    def clip(self, most: float) -> Tensor:
        """Scale all gradients down to a norm; return the norm before, the same on all ranks."""
        if not self.ranks.sharded:
            return nn.utils.clip_grad_norm_(self.trained(), most)
        from embfit.training.ranks.sharding import clip_gradients  # PyTorch's sharding takes a while to import

        return clip_gradients(_trained(self.encoder), _trained(self.loss), most)

    def _sum_over_ranks(self) -> None:
        """Give all ranks the gradients of the whole batch."""
        if self.ranks.size == 1:
            return
        for weight in self.loss.parameters():  # every rank has computed the whole loss: this makes their mean
            if weight.grad is not None:
                weight.grad /= self.ranks.size
        weights = _trained(self.loss) if self.ranks.sharded else self.trained()  # sharded gradients are sums already
        # asked in every step: an expert that no text was sent to before has no gradient until one is
        self.ranks.sum_gradients(self.ranks.reached(weights))

    def _seeded(self, step: int, micro_batch: int) -> AbstractContextManager[object]:
        if not self.settings.dropout:
            return nullcontext()
        return random_state(self._seed(step, micro_batch), self.encoder.device)

    def _seed(self, step: int, part: int) -> int:
        """Return a seed for a part of a step: a micro-batch, or after the last one the loss."""
        return int(np.random.SeedSequence([self.settings.seed, step, part]).generate_state(1, np.uint64)[0])

    def _kept(self, inputs: Inputs, micro_batches: list[np.ndarray], step: int) -> int:
        """Return how many micro-batches can keep their graph within the memory allowed."""
        if not micro_batches:
            return 0

        def measure() -> int:
            with measure_graph(self.encoder) as size, self._seeded(step, 0):
                inputs.encode(micro_batches[0])
            return size.bytes

        if self._graphs is None:
            gigabytes = self.settings.memory_gb
            self._graphs = GraphLimit(self._spare_bytes() / 2 if gigabytes is None else gigabytes * GIGABYTE)
        # ranks that gather weights in each pass must measure together and keep equally many graphs
        longest = int((inputs.lengths if self.ranks.sharded else inputs.lengths[micro_batches[0]]).max())
        kept = self._graphs.kept(inputs.areas(micro_batches), longest, measure)
        return self.ranks.least(kept) if self.ranks.sharded else kept

    def _spare_bytes(self) -> float:
        """Return the memory that is free before the first step, less what gradients and moments will take of it."""
        device = self.encoder.device
        free = free_bytes(device)
        own = free if device.type == "cuda" else free / self.ranks.here  # each rank has a GPU to itself
        copies = 1 if self.resumed else 3
        ranks = self.ranks.size if self.ranks.sharded else 1
        held = [shard_size(weight.shape, ranks) * weight.element_size() for weight in _trained(self.encoder)]
        return max(0.0, own - copies * (sum(held) + sum(weight.nbytes for weight in _trained(self.loss))))


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in module.parameters() if weight.requires_grad]
