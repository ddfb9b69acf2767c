"""How requests are sent to a server: the settings, the body of a request, and its cost."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from embfit.generator.answers import QUERIES, Expected, Form, ModelReply
from embfit.generator.budget import Budget, Price, Spending
from embfit.generator.client import URL
from embfit.generator.plan import QueryRequest
from embfit.type_hints import Location

Structured: TypeAlias = Literal["auto", "schema", "object", "none"]

OVERHEAD = 200  # the most tokens that a chat template adds to a prompt


@dataclass(frozen=True)
class AskingSettings:
    """How requests are sent to a server.

    Args:
        model: the model's name on the server.
        form: `chat` for models that follow instructions, `completion` for base models.
        structured: how the server is told to answer in JSON of a certain form.
        sampling: fields of the body for the model's sampling.
        length_field: the name of the body's field for `max_tokens`.
        max_tokens: the most tokens of an answer.
        send_seed: whether to send a seed with each request.
        concurrency: the most concurrent requests.
        tries: how often a request is sent until it gets an answer.
        patience: seconds that a server may be busy without answering any request.
        budget: the limits of what all requests may cost.
        price: the price of the tokens.
        expected: the expected content of an answer.
        group: the configuration key of these settings, for messages.
    """

    model: str
    form: Form = "chat"
    structured: Structured = "auto"
    sampling: dict[str, Any] = field(default_factory=dict)
    length_field: str = "max_tokens"
    max_tokens: int = 400
    send_seed: bool = True
    concurrency: int = 8
    tries: int = 6
    patience: float = 600.0
    budget: Budget = field(default_factory=Budget)
    price: Price = field(default_factory=Price)
    expected: Expected = QUERIES
    group: str = "generator"

    def body(self, request: QueryRequest, structured: Structured, again: int = 0) -> dict[str, Any]:
        """Return the body of a request, after `again` malformed answers."""
        body: dict[str, Any] = {"model": self.model, self.length_field: self.max_tokens, **self.sampling}
        if self.send_seed:
            body["seed"] = request.seed + again  # with the same seed the answer would be the same
        if self.form == "completion":
            return {**body, "prompt": request.prompt, "stop": ["\n"]}
        if structured == "object":
            body["response_format"] = {"type": "json_object"}
        elif structured in ("auto", "schema"):
            schema = {"name": self.expected.name, "strict": True, "schema": dict(self.expected.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return {**body, "messages": [{"role": "user", "content": request.prompt}]}

    def most(self, request: QueryRequest) -> Spending:
        """Return the most that a request can cost: a text never has more tokens than bytes."""
        read = len(request.prompt.encode()) + OVERHEAD
        return Spending(1, read + self.max_tokens, self.price.of(read, self.max_tokens))

    def cost(self, reply: ModelReply) -> Spending | None:
        """Return the cost of an answer; None if the server does not report its tokens."""
        if reply.input is None or reply.output is None:
            return None
        return Spending(1, reply.input + reply.output, self.price.of(reply.input, reply.output))


@dataclass(frozen=True, kw_only=True)
class ModelServer:
    """A server with OpenAI's API and a model on it; subclasses define the requests.

    Args:
        url: the server's address up to the version, such as http://localhost:8000/v1.
        model: the model's name on the server.
        key_variable: the *name* of the environment variable that holds the server's key; None for a server without.
        structured: how the server is told to answer in JSON: by a `schema`, as an `object`, or by the prompt alone
            (`none`); `auto` sends a schema if the server accepts one.
        max_tokens: the most tokens of an answer.
        length_field: the server's name for that limit (`max_completion_tokens` for some models).
        send_seed: whether to send a seed with each request, since some servers answer equal requests alike.
        extra: further fields of each request; never a key, since requests are recorded.
        concurrency: the most concurrent requests; a busy server gets fewer.
        timeout: seconds that a request may take in total.
        tries: how often a request is sent until it gets an answer.
        patience: seconds that a server may be busy without answering any request.
        budget: the limits of what the requests of a data set may cost.
        price: the price of the tokens.
        journal: the file that records requests and answers; None is the one in the store.
    """

    url: Annotated[str | None, Location(required=True, example=f"{URL}, the server's address", service=True)] = None
    model: Annotated[str | None, Location(required=True, example="NAME, as the server knows it", service=True)] = None
    key_variable: str | None = None
    structured: Structured = "auto"
    max_tokens: Annotated[int, Field(ge=8)] = 400
    length_field: str = "max_tokens"
    send_seed: bool = True
    extra: dict[str, Any] | None = None
    concurrency: Annotated[int, Field(ge=1)] = 8
    timeout: Annotated[float, Field(gt=0)] = 120.0
    tries: Annotated[int, Field(ge=1)] = 6
    patience: Annotated[float, Field(ge=0)] = 600.0
    budget: Budget = field(default_factory=Budget)
    price: Price = field(default_factory=Price)
    journal: str | None = None

    def check(self, group: str) -> None:
        """Check the settings.

        Args:
            group: their configuration key, for messages.

        Raises:
            ValueError: `key_variable` is not a variable's name, or a cost is limited and no price is set.
        """
        if self.key_variable is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.key_variable):
            raise ValueError(  # without the value, which may be the key itself
                "key_variable: expected the name of an environment variable that holds the key"
            )
        if self.budget.cost is not None and self.price == Price():
            raise ValueError(f"budget.cost is set and no price is; set {group}.price.input and {group}.price.output")

    def asking(
        self, sampling: dict[str, Any], form: Form = "chat", expected: Expected = QUERIES, group: str = "generator"
    ) -> AskingSettings:
        """Return these settings as `AskingSettings`, which documents the arguments."""
        return AskingSettings(
            model=str(self.model),
            form=form,
            structured=self.structured,
            sampling=sampling,
            length_field=self.length_field,
            max_tokens=self.max_tokens,
            send_seed=self.send_seed,
            concurrency=self.concurrency,
            tries=self.tries,
            patience=self.patience,
            budget=self.budget,
            price=self.price,
            expected=expected,
            group=group,
        )
