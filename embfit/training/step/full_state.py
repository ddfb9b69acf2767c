"""The full state of a training on its first rank: the encoder, the trained weights and the optimizer's moments.

Without sharding, every rank has all of this. With sharding, the first rank commands the other ranks to gather it
together (`Ranks.send`); they wait in `Ranks.agree`, which calls `take_part`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from embfit.model.precision import Precision
from embfit.training.ranks.collectives import Command, Ranks
from embfit.training.step.gradients import Trained

if TYPE_CHECKING:
    from embfit.training.ranks.sharding import Shards


class FullState:
    """Gathers what the first rank validates, mines with and saves.

    Args:
        encoder: the full encoder; it is sharded if the ranks shard.
        loss: a module whose parameters are trained as well; it is never sharded.
        ranks: the processes that train together, all of which make this object.
        precision: the number format in which training computes.

    Attributes:
        trained: the encoder whose weights the optimizer updates: the sharded one if the ranks shard.

    Raises:
        UserError: the encoder cannot be sharded, or this PyTorch cannot do it.
    """

    def __init__(self, encoder: Trained, loss: nn.Module, ranks: Ranks, precision: Precision) -> None:
        self.trained = encoder
        self.loss = loss
        self.ranks = ranks
        self._shards: Shards | None = None
        if ranks.sharded:
            from embfit.training.ranks.sharding import Shards  # takes a while to import

            self._shards = Shards(encoder, ranks, precision)
            self.trained = self._shards.encoder

    @property
    def sharded(self) -> bool:
        """Whether each rank has only a shard of the trained encoder."""
        return self._shards is not None

    @contextmanager
    def encoder(self, together: bool = False) -> Iterator[Trained]:
        """Yield, on the first rank, the encoder with all of its present weights.

        Args:
            together: whether all ranks enter the context; else the first rank enters alone, and the others wait in
                `Ranks.agree`.
        """
        if self._shards is None:
            yield self.trained
            return
        if not together:
            self.ranks.send(Command.GATHER_WEIGHTS)
        with self._shards.gathered() as encoder:
            yield encoder

    def weights(self) -> dict[str, Tensor]:
        """Return by name the trained weights, on the first rank; the others wait in `Ranks.agree`."""
        encoder = self.trained
        if self._shards is not None:
            self.ranks.send(Command.GATHER_WEIGHTS)
            self._shards.gather()
            encoder = self.trained if self._shards.full is None else self._shards.full
        parts = {"encoder": trained_weights(encoder), "loss": trained_weights(self.loss)}
        return {f"{part}.{name}": weight for part, weights in parts.items() for name, weight in weights.items()}

    def optimizer(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimizer's state, on the first rank; the others wait in `Ranks.agree`."""
        if self._shards is None:
            return optimizer.state_dict()
        self.ranks.send(Command.GATHER_STATE)
        return self._shards.gather_state(optimizer)

    def restore_optimizer(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Load a state that `optimizer` returned, with sharding or without."""
        optimizer.load_state_dict(state if self._shards is None else self._shards.shard_state(state, optimizer))

    def take_part(self, command: Command, optimizer: Optimizer) -> None:
        """Gather, on another rank than the first, what the first rank has commanded."""
        if self._shards is None:
            raise RuntimeError(f"{command.name} was sent to a rank that has all weights")
        if command is Command.GATHER_WEIGHTS:
            self._shards.gather()
        else:
            self._shards.gather_state(optimizer)

    def gather(self) -> None:
        """Copy the trained weights into the first rank's full encoder; all ranks call this."""
        if self._shards is not None:
            self._shards.gather()

    def release(self) -> Trained | None:
        """Forget the shards and return the full encoder, or None on the other ranks."""
        if self._shards is None:
            return self.trained
        full, self._shards = self._shards.full, None
        del self.trained
        return full


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return by name the weights that training updates; the others are as they were loaded."""
    return {name: weight.detach() for name, weight in module.named_parameters() if weight.requires_grad}
