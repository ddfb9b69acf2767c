"""Parse a language model's answers, strictly: nothing is repaired by guessing."""

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

BEST = 3  # the highest of a judge's grades; the lowest is 0

GRADE: dict[str, Any] = {
    "type": "object",
    "properties": {"grade": {"type": "integer", "enum": list(range(BEST + 1))}},
    "required": ["grade"],
    "additionalProperties": False,
}

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"\A\s*```[a-z]*\n(.*)\n\s*```\s*\Z", re.DOTALL)


class MalformedError(Exception):
    """An answer that does not have the expected form; the message says why."""


@dataclass(frozen=True)
class Expected:
    """The expected content of an answer.

    Args:
        name: the name of the JSON schema, which servers require.
        schema: the JSON schema.
        read: parses the model's text, given the number of queries requested and the form; raises `MalformedError` if
            the text does not have that form.
    """

    name: str
    schema: Mapping[str, Any]
    read: Callable[[str, int, Form], Any]


@dataclass(frozen=True)
class ModelReply:
    """The content of a server's answer.

    Args:
        text: the text that the model wrote.
        input: the number of tokens of the prompt; None if the server does not report it.
        output: the number of tokens of the text; None if the server does not report it.
        is_finished: whether the model ended the text before the limit of tokens.
    """

    text: str
    input: int | None
    output: int | None
    is_finished: bool = True

    @property
    def has_whole_line(self) -> bool:
        """Whether the first line is complete; a server that ignores `stop` may have written further ones."""
        return self.is_finished or "\n" in self.text.strip()


def read_reply(body: str, form: Form) -> ModelReply:
    """Parse the answer of an OpenAI-compatible server.

    Raises:
        MalformedError: the answer has another form.
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
    """Return the queries in a model's text, at most `count`, each on one line.

    A `<think>` block at the beginning and a code fence around the rest are removed first.

    Args:
        text: the text that the model wrote.
        count: the number of queries requested.
        form: `chat` expects an object with the key `queries`; `completion` takes the first line.

    Raises:
        MalformedError: the text has another form, or contains no query.
    """
    if form == "completion":
        written = text.strip().partition("\n")[0]
        found = [" ".join(written.split())]
    else:
        found = [" ".join(query.split()) for query in _listed(text)]
    queries = [query for query in found if query]
    if not queries:
        raise MalformedError("it contains no query")
    return queries[:count]


def read_grade(text: str, count: int = 1, form: Form = "chat") -> int:
    """Return the grade in a judge's text, 0 to 3; a `<think>` block and a code fence are removed as in `read_queries`.

    Args:
        text: the text that the model wrote, an object with the key `grade`.
        count: ignored; it is part of the interface of `Expected.read`.
        form: ignored likewise.

    Raises:
        MalformedError: the text has another form.
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
    """Parse the JSON of an answer, without a `<think>` block before it and a code fence around it."""
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
