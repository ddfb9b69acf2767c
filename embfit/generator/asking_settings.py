"""How a server is asked: what is sent for a request, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from embfit.generator.answers import QUERIES, Expected, Form, ModelReply
from embfit.generator.budget import Budget, Price, Spending
from embfit.generator.plan import QueryRequest

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
        price: of the tokens.
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
