"""The interface of a kind of model in a fine-tuning: how it is loaded, measured, trained and saved.

A new kind is one file beside this one, with a frozen dataclass that has these attributes and methods, and an entry in
`finetune.TRAINEES`. Its first field is the model; the type hints of its fields say which losses and trainings go with
it, and the preflight holds the configuration to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from torch import nn

from embfit.compose.compatibility import accepts
from embfit.compose.targets import type_hints
from embfit.errors import ConfigError
from embfit.evaluator.systems import EvaluationContext
from embfit.model import Encoder, EncoderChoice
from embfit.records import Evaluation, Report, TrainingSet
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.reporting import Usage

if TYPE_CHECKING:
    import pytorch_lightning as pl

Model = TypeVar("Model")
Measured: TypeAlias = list[Evaluation]
"""A system's evaluations: one on the split that is reported, and one on the production split where there is one."""


@dataclass(frozen=True)
class Fitting:
    """What a trainee is trained with besides its own settings.

    Args:
        trainer: makes Lightning's Trainer from the arguments that training adds.
        store: keeps tokens and vectors.
        training_set: what the miner made.
        remine: makes a new training set for the same queries, with the given encoder.
        dev: the split that chooses which weights are kept; None keeps the last ones.
        run: the run folder, which holds the stages, the checkpoints and the model.
    """

    trainer: partial[pl.Trainer]
    store: Store
    training_set: TrainingSet
    remine: Callable[[Encoder], TrainingSet]
    dev: EvaluationContext | None
    run: RunFolder


class Trainee(Protocol[Model]):
    """A kind of model in a fine-tuning. The methods receive the model that `load` or `train` returned."""

    @property
    def first_stage(self) -> EncoderChoice:
        """The encoder that searches the documents, also for miners that need one."""

    @property
    def base_system(self) -> str:
        """The system of `evaluator.systems` that stands for `base`."""

    @property
    def fuses_with_words(self) -> bool:
        """Whether it searches the documents itself, so that it can be fused with BM25."""

    @property
    def usage(self) -> Usage:
        """How to use the trained model."""

    def load(self, context: EvaluationContext, sharded: bool) -> Model:
        """Load the model from which training starts; refuse one that cannot be trained, before any work is done.

        Args:
            context: the devices of the model.
            sharded: whether ranks will shard its weights.
        """

    def count_truncated(self, model: Model, context: EvaluationContext) -> Mapping[str, int]:
        """Return how many texts exceed the model's length, if that is counted."""

    def measure_before(self, model: Model, contexts: Sequence[EvaluationContext]) -> Mapping[str, Measured]:
        """Measure the systems that the tuned model is compared with; the first is `base`."""

    def train(self, model: Model, fitting: Fitting) -> tuple[Model, Mapping[str, Any]]:
        """Train and save the model, or read the one that an interrupted run had saved; return it with the record."""

    def measure_tuned(self, model: Model, contexts: Sequence[EvaluationContext]) -> Measured:
        """Measure the tuned model."""

    def write_card(self, report: Report, run: RunFolder) -> None:
        """Write the model's card into its folder."""


def trainee_of(
    kinds: Iterable[Callable[..., Trainee[Any]]], model: Any, loss: nn.Module, training: Any
) -> Trainee[Any]:
    """Return the trainee of the first kind that accepts the model, the loss and the training.

    Raises:
        ConfigError: they do not fit together.
    """
    for kind in kinds:
        if all(map(accepts, type_hints(kind).values(), map(type, (model, loss, training)))):
            return kind(model, loss, training)
    named = ", ".join(type(part).__name__ for part in (model, loss, training))
    raise ConfigError(f"{named} do not fit together in a fine-tuning")
