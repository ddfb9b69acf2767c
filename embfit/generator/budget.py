"""What requests may cost, and what they have cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from pydantic import Field

MILLION = 1_000_000

Limit: TypeAlias = Annotated[int, Field(ge=1)]
Money: TypeAlias = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Price:
    """What a model's tokens cost, in any currency.

    Args:
        input: the price of a million tokens that the model reads; None where they are free.
        output: the price of a million tokens that the model writes; None where they are free.
    """

    input: Money | None = None
    output: Money | None = None

    def of(self, input: int, output: int) -> float:
        """Return what so many tokens cost."""
        return (input * (self.input or 0.0) + output * (self.output or 0.0)) / MILLION


@dataclass(frozen=True)
class Spending:
    """What some requests have cost, or may cost.

    Args:
        requests: the number of requests that were sent to a server, whatever it answered.
        tokens: the number of tokens read and written.
        cost: their price.
    """

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True)
class Budget:
    """What the requests of one data set may cost, whenever and by whichever process they are sent.

    A request reserves the most that it can cost before it is sent, so that no limit is exceeded. What it has cost takes
    the place of the reservation when its answer has come; a request whose answer is lost stays charged in full.

    Args:
        requests: the number of requests; None for no limit.
        tokens: the number of tokens, read and written; None for no limit.
        cost: the price of those tokens, by `Price`; None for no limit.
    """

    requests: Limit | None = None
    tokens: Limit | None = None
    cost: Money | None = None

    def refusal(self, spent: Spending, more: Spending) -> str | None:
        """Name the limit that `more` would exceed, None where there is room for it."""
        limits = (
            ("requests", self.requests, spent.requests, more.requests),
            ("tokens", self.tokens, spent.tokens, more.tokens),
            ("cost", self.cost, spent.cost, more.cost),
        )
        for name, limit, used, wanted in limits:
            if limit is not None and used + wanted > limit:
                room = f"{used:g} is used or reserved, and a request may take {wanted:g}"
                return f"budget.{name}={limit:g}: {room}"
        return None
