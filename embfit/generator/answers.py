"""What a language model has answered, read strictly: nothing is repaired by guessing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Form: TypeAlias = Literal["chat", "completion"]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"queries": {"type": "array", "items": {"type": "string"}}},
    "required": ["queries"],
    "additionalProperties": False,
}

BEST = 3  # of a judge's grades, which begin with 0

GRADE: dict[str, Any] = {
    "type": "object",
    "properties": {"grade": {"type": "integer", "enum": list(range(BEST + 1))}},
    "required": ["grade"],
    "additionalProperties": False,
}

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"\A\s*```[a-z]*\n(.*)\n\s*```\s*\Z", re.DOTALL)


class MalformedError(Exception):
    """An answer without queries in the form that was asked for; the message says why."""


@dataclass(frozen=True)
class Expected:
    """What an answer is to hold.

    Args:
        name: what the server is told that it is.
        schema: its JSON schema.
        read: reads it, given the model's text, the number of queries asked for and the form; it raises
            `MalformedError` where the text has not that form.
    """

    name: str
    schema: Mapping[str, Any]
    read: Callable[[str, int, Form], Any]


@dataclass(frozen=True)
class ModelReply:
    """What a server's answer holds.

    Args:
        text: what the model has written.
        input: the number of tokens that it read; None where the server does not say.
        output: the number of tokens that it wrote; None where the server does not say.
        is_finished: whether it had come to its end when the server stopped it.
    """

    text: str
    input: int | None
    output: int | None
    is_finished: bool = True

    @property
    def has_whole_line(self) -> bool:
        """Whether the first line is all there; a server that takes no notice of `stop` has gone on after it."""
        return self.is_finished or "\n" in self.text.strip()


def read_reply(body: str, form: Form) -> ModelReply:
    """Read the answer of an OpenAI-compatible server.

    Raises:
        MalformedError: it is no such answer.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"the server's answer is not JSON: {_start(body)}") from error
    try:
        [choice, *_] = answer["choices"]
        text = choice["message"]["content"] if form == "chat" else choice["text"]
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedError(f"the server's answer has no choice with a text: {_start(body)}") from error
    if not isinstance(text, str):
        raise MalformedError(f"the server's answer has no text: {_start(body)}")
    usage = answer.get("usage")
    counts = [usage.get(key) if isinstance(usage, dict) else None for key in ("prompt_tokens", "completion_tokens")]
    read, written = (count if type(count) is int and count >= 0 else None for count in counts)
    return ModelReply(text, read, written, choice.get("finish_reason") != "length")


def read_queries(text: str, count: int, form: Form) -> list[str]:
    """Return the queries that a model has written, `count` at most, each on one line.

    Before an answer is read, one thought in `<think>` at its beginning and one code fence around the rest are removed.

    Args:
        text: what the model has written.
        count: the number of queries that it was asked for.
        form: `chat`: an object with the key `queries`; `completion`: the first line.

    Raises:
        MalformedError: it has not that form, or no query.
    """
    if form == "completion":
        written = text.strip().partition("\n")[0]
        found = [" ".join(written.split())]
    else:
        found = [" ".join(query.split()) for query in _listed(text)]
    queries = [query for query in found if query]
    if not queries:
        raise MalformedError("it has no query")
    return queries[:count]


def read_grade(text: str, count: int = 1, form: Form = "chat") -> int:
    """Return the grade that a judge has given, 0 to 3; a thought and a code fence are removed as from queries.

    Args:
        text: what the model has written.
        count: is not looked at; there is one grade.
        form: likewise; it is an object with the key `grade`.

    Raises:
        MalformedError: it is no such object.
    """
    answer = _json(text)
    grade = answer.get("grade") if isinstance(answer, dict) else None
    if type(grade) is not int or not 0 <= grade <= BEST:
        raise MalformedError(f'it is not an object with a number from 0 to {BEST} under "grade": {_start(text)}')
    return grade


def _listed(text: str) -> list[str]:
    answer = _json(text)
    queries = answer.get("queries") if isinstance(answer, dict) else None
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise MalformedError(f'it is not an object with a list of texts under "queries": {_start(text)}')
    return queries


def _json(text: str) -> Any:
    """Return what the JSON of an answer says, without one thought before it and one code fence around it."""
    bare = _THOUGHT.sub("", text, count=1)
    fenced = _FENCE.match(bare)
    bare = fenced[1] if fenced else bare
    try:
        return json.loads(bare)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"it is not JSON: {_start(bare)}") from error


def _start(text: str) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return (line if len(line) <= 80 else f"{line[:80]}…") or "(nothing)"


QUERIES = Expected("queries", SCHEMA, read_queries)
VERDICT = Expected("verdict", GRADE, read_grade)
