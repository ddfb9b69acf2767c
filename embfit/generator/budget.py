"""Prices, spending and budgets of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from pydantic import Field

MILLION = 1_000_000

Limit: TypeAlias = Annotated[int, Field(ge=1)]
Money: TypeAlias = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Price:
    """The price of a model's tokens, in any currency.

    Args:
        input: the price of a million tokens that the model reads; None if they are free.
        output: the price of a million tokens that the model writes; None if they are free.
    """

    input: Money | None = None
    output: Money | None = None

    def of(self, input: int, output: int) -> float:
        """Return the cost of numbers of tokens."""
        return (input * (self.input or 0.0) + output * (self.output or 0.0)) / MILLION


@dataclass(frozen=True)
class Spending:
    """The cost of some requests, or the most that they can cost.

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
    """The limits of what the requests of one data set may cost, over all runs and processes.

    Before a request is sent, it reserves the most that it can cost, so that no limit is exceeded. Its answer replaces
    the reservation by the actual cost; a request whose answer is lost stays charged in full.

    Args:
        requests: the number of requests; None for no limit.
        tokens: the number of tokens, read and written; None for no limit.
        cost: the price of those tokens, by `Price`; None for no limit.
    """

    requests: Limit | None = None
    tokens: Limit | None = None
    cost: Money | None = None

    def refusal(self, spent: Spending, more: Spending) -> str | None:
        """Return a message about the limit that `more` would exceed; None if it exceeds none."""
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
