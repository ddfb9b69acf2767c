"""How a server is asked: the settings of a configuration, what is sent for a request, and what that costs."""

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

OVERHEAD = 200  # tokens of a chat template around a prompt, at most


@dataclass(frozen=True)
class AskingSettings:
    """How a server is asked.

    Args:
        model: the name that the server knows the model by.
        form: `chat` for models that follow instructions, `completion` for base models.
        structured: what says that the answer is JSON of a certain form.
        sampling: the body's fields that say how the model draws its words.
        length_field: the body's field for the number of tokens that may be written.
        max_tokens: the number of tokens that may be written.
        send_seed: send a seed with each request.
        concurrency: the number of requests under way at once, at most.
        tries: the number of times that a request is sent while it gets no answer.
        patience: seconds that a server may be busy without answering anything.
        budget: the limits of what all requests may cost.
        price: the price of the tokens.
        expected: what an answer is to hold.
        group: the key that these settings stand under in a configuration, which messages name.
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
        """Return what is sent for a request, `again` being the number of answers that were malformed."""
        body: dict[str, Any] = {"model": self.model, self.length_field: self.max_tokens, **self.sampling}
        if self.send_seed:
            body["seed"] = request.seed + again  # else the same words would come back
        if self.form == "completion":
            return {**body, "prompt": request.prompt, "stop": ["\n"]}
        if structured == "object":
            body["response_format"] = {"type": "json_object"}
        elif structured in ("auto", "schema"):
            schema = {"name": self.expected.name, "strict": True, "schema": dict(self.expected.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return {**body, "messages": [{"role": "user", "content": request.prompt}]}

    def most(self, request: QueryRequest) -> Spending:
        """Return the most that a request can cost: no tokenizer makes more tokens of a text than it has bytes."""
        read = len(request.prompt.encode()) + OVERHEAD
        return Spending(1, read + self.max_tokens, self.price.of(read, self.max_tokens))

    def cost(self, reply: ModelReply) -> Spending | None:
        """Return what an answer has cost, None where the server does not say."""
        if reply.input is None or reply.output is None:
            return None
        return Spending(1, reply.input + reply.output, self.price.of(reply.input, reply.output))


@dataclass(frozen=True, kw_only=True)
class ModelServer:
    """A server that speaks OpenAI's API and the model that is asked there; its subclasses say what they ask for.

    Args:
        url: the server's address up to the version, such as http://localhost:8000/v1.
        model: the name that the server knows the model by.
        key_variable: the *name* of the environment variable that holds the server's key; None for a server without.
        structured: what tells the server that answers are JSON: a `schema`, `object`, `none` (the template's words), or
            `auto`, a schema where the server takes one.
        max_tokens: the number of tokens of an answer at most.
        length_field: what the server calls that limit (`max_completion_tokens` for some models).
        send_seed: send a seed with each request, for servers that answer equal requests alike.
        extra: further fields of each request, as the server wants them; never a key, since they are recorded.
        concurrency: the number of requests under way at once, at most; a busy server gets fewer.
        timeout: seconds that a request may take in all.
        tries: the number of times that a request is sent while it gets no answer.
        patience: seconds that a server may be busy without answering anything.
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
        """Refuse settings that cannot be meant.

        Args:
            group: the key that they stand under in a configuration.

        Raises:
            ValueError: the variable's name is a key, or a cost is limited and no price is set.
        """
        if self.key_variable is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.key_variable):
            raise ValueError(  # not its value
                "key_variable: expected the name of an environment variable that holds the key"
            )
        if self.budget.cost is not None and self.price == Price():
            raise ValueError(f"budget.cost is set and no price is; set {group}.price.input and {group}.price.output")

    def asking(
        self, sampling: dict[str, Any], form: Form = "chat", expected: Expected = QUERIES, group: str = "generator"
    ) -> AskingSettings:
        """Return how requests are sent; arguments as `AskingSettings`, which has the rest from here."""
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
