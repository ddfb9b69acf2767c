"""The plan of a training and the record of its outcome, importable without Lightning."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

MOST_MINUTES = 1440  # YAML reads 12:00:00 without quotes as 43200, and 30:00 as 1800


@dataclass(frozen=True)
class DevChange:
    """The change on the dev split between the weights before training and the kept ones, query by query.

    Args:
        queries: how many queries the split has.
        difference: the mean nDCG@10 of the kept weights less that of the weights before training.
        bounds: the 95 % interval of the difference; None for a single query.
    """

    queries: int
    difference: float
    bounds: tuple[float, float] | None


@dataclass(frozen=True)
class Fit:
    """The outcome of a training.

    Args:
        steps: how many optimizer steps were taken.
        epochs: how many passes over the examples these were, as a fraction.
        kept_step: the step whose weights the encoder has now; 0 means the weights before training.
        history: one entry for each validation: `step` and the metrics.
        dev_change: the change on the dev split; None without a dev split, or if the kept weights are those before
            training.
        curve: points of `step`, `loss`, `accuracy` (the share of positives above all their negatives) and `lr`, a
            few hundred at most, each the mean of the steps since the one before.
        stopped: `finished`, `plateau`, or `time` if `max_time` ended it.
        seconds: how long training took, without validation.
        validation_seconds: how long validation took.
        pairs_per_second: how many (query, positive) pairs were trained on in a second.
        peak_memory_gb: the most memory that the process (CPU) or the device (GPU) used, in 1e9 bytes.
    """

    steps: int
    epochs: float
    kept_step: int
    history: list[dict[str, float]]
    dev_change: DevChange | None
    curve: list[dict[str, float]]
    stopped: Literal["finished", "plateau", "time"]
    seconds: float
    validation_seconds: float
    pairs_per_second: float
    peak_memory_gb: float


@dataclass(frozen=True)
class TrainingPlan:
    """When a training validates, writes checkpoints and ends.

    Args:
        steps: how many optimizer steps there are, at most.
        per_epoch: how many of them an epoch has.
        validations_per_epoch: how often an epoch is validated, evenly spread; the last step always is.
        patience: stops training after this many validations in a row that gain nothing beyond chance; None never
            stops.
        min_gain: the nDCG@10 that counts as a gain.
        checkpoint_every: how many steps are between two checkpoints; None writes one at each validation, or where one
            would be.
        limit: how many seconds the whole training may take; None is no limit.
    """

    steps: int
    per_epoch: int
    validations_per_epoch: int
    patience: int | None
    min_gain: float
    checkpoint_every: int | None
    limit: float | None


def seconds(time_given: str | float) -> float:
    """Return the seconds of `"HH:MM:SS"`, `"DD:HH:MM:SS"` or a number of minutes.

    Raises:
        ValueError: it is neither, not above zero, or may be a time whose quotes were forgotten.
    """
    if isinstance(time_given, str):
        if not re.fullmatch(r"(\d+:)?\d+:\d\d:\d\d", time_given):
            raise ValueError(
                f'max_time={time_given} is not a time; write "HH:MM:SS", "DD:HH:MM:SS" or a number of minutes'
            )
        days, hours, minutes, rest = ([0] * 4 + [int(part) for part in time_given.split(":")])[-4:]
        found = ((days * 24 + hours) * 60 + minutes) * 60.0 + rest
    elif time_given >= MOST_MINUTES:
        raise ValueError(
            f"max_time={time_given} would be minutes, of which {MOST_MINUTES} are too many; quote a time "
            '("12:00:00", as YAML reads 12:00:00 as 43200), and write more than a day as one, too'
        )
    else:
        found = time_given * 60.0
    if found <= 0:
        raise ValueError(f"max_time={time_given} leaves no time; give more, or null for no limit")
    return found
