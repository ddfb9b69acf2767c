"""Mines negatives again with the model in training: the ones that it confuses now (ANCE, Xiong et al. 2021).

Mining happens between two epochs, on the first rank. The mined examples lie beside the checkpoint, for the other ranks
and for a run that resumes within an epoch, when the weights that mined them are gone.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embfit.atomic_files import replacing
from embfit.errors import UserError, first_line
from embfit.model import Encoder
from embfit.records import TrainingSet
from embfit.training.batches import ExampleArrays
from embfit.training.ranks.collectives import Ranks

log = logging.getLogger(__name__)


class Remining:
    """Gives each epoch its examples.

    Args:
        mine: makes a training set with an encoder; only the first rank calls it.
        every: how many epochs pass until examples are mined again.
        first: the examples that training begins with; later ones are for the same queries, in the same order.
        max_positives: how many positives of one query an epoch has.
        folder: holds the mined examples, on a disk that all ranks see.
    """

    def __init__(
        self, mine: Callable[[Encoder], TrainingSet], every: int, first: ExampleArrays, max_positives: int, folder: Path
    ) -> None:
        self.mine = mine
        self.every = every
        self.queries = first.queries
        self.max_positives = max_positives
        self.folder = folder
        self.mined_in = 0  # the epoch for which the current examples were mined; 0: the first ones

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the miner and its data, which only the first rank uses."""
        return {**vars(self), "mine": None}

    def is_due(self, epoch: int, begins: bool) -> bool:
        """Say whether examples are mined for an epoch now; arguments as `examples`."""
        return begins and epoch > 0 and epoch % self.every == 0

    def examples(self, epoch: int, begins: bool, encoder: Encoder, ranks: Ranks) -> ExampleArrays | None:
        """Return the examples of an epoch; None if those of the epoch before are still used.

        Args:
            epoch: the epoch, from 0.
            begins: whether the epoch begins; a run may resume within it.
            encoder: mines if that `is_due`, with all weights on the first rank; else it is not used.
            ranks: the processes that train together, all of which call this.

        Raises:
            UserError: mining again left queries out, or an interrupted run's examples cannot be read.
        """
        mined_in = epoch - epoch % self.every
        if mined_in == 0 or (mined_in == self.mined_in and not self.is_due(epoch, begins)):
            return None
        path = self.folder / f"mined-{mined_in}.pt"
        if self.is_due(epoch, begins):
            if ranks.leads:
                log.info("mining again with the model after epoch %d", epoch)
                found = self._mined(encoder)
                with replacing(path) as temporary:
                    torch.save(found, temporary)
            ranks.agree(False)  # all wait for the file
        self.mined_in = mined_in
        return _read(path)

    def _mined(self, encoder: Encoder) -> ExampleArrays:
        found = ExampleArrays(self.mine(encoder), self.max_positives)
        if not np.array_equal(found.queries, self.queries):
            others = len(np.setxor1d(found.queries, self.queries))
            raise UserError(
                f"mining again changed which of {len(self.queries)} queries are trained on ({others} came or went), "
                "and batches are planned for those of the beginning; set unreached=keep in every miner, or "
                "training.remine_every=null"
            )
        return found


def _read(path: Path) -> ExampleArrays:
    try:
        found: ExampleArrays = torch.load(path, weights_only=False)  # written by this run
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: what was mined in this training cannot be read ({first_line(error)}); remove its folder to train "
            "from the beginning"
        ) from error
    return found
