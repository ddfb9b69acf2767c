"""What passes as a value of a type, and what is said when it does not."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Gt
from pydantic import BaseModel, Field

from embfit.compose.values import complaint, shown, wanted

Depth = Annotated[int, Field(ge=1)]


class Plain:
    """A class that pydantic knows nothing of."""


class Settings(BaseModel):
    """A type with a pydantic configuration of its own."""

    a: int


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, int),
        (3, float),
        (1e-5, float),
        (None, int | None),
        ("auto", float | Literal["auto"]),
        ([64, 128], Sequence[Depth]),
        ([64, 128], tuple[int, ...]),
        ([1, "a"], tuple[int, str]),
        ("data/corpus.jsonl", Path),
        ({"a": 1}, Mapping[str, int]),
        ({"a": 1}, Settings),
        ("anything", Any),
        ("cls", Literal["cls", "mean"]),
        ("anything", "Nowhere"),
    ],
)
def test_right_values_pass(value, hint):
    assert complaint(value, hint) is None


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("abc", int, 'expected a whole number, got "abc"'),
        (float("inf"), float, "expected a number, got Infinity"),
        ([1.0, float("nan")], list[float], "expected a list of numbers, got [1.0, NaN]"),
        ("3", int, 'expected a whole number, got "3"'),
        (2.5, int, "expected a whole number, got 2.5"),
        (True, int, "expected a whole number, got true"),
        (-1, Depth, "expected a whole number of at least 1, got -1"),
        (0.0, Annotated[float, Gt(0)], "expected a number above 0, got 0.0"),
        (2, Annotated[float, Field(ge=0, le=1)], "expected a number of at least 0 and of at most 1, got 2"),
        ("yes", bool, 'expected true or false, got "yes"'),
        (None, int, "expected a whole number, got null"),
        ("max", Literal["cls", "mean"], 'expected one of cls, mean, got "max"'),
        (7, str | None, "expected text or null, got 7; for text quote it: \"'7'\""),
        ([64, "x"], Sequence[int], 'expected a list of whole numbers, got [64, "x"] (entry 1 is "x")'),
        (
            [64, 0],
            Sequence[Depth] | None,
            "expected a list of whole numbers of at least 1 or null, got [64, 0] (entry 1 is 0)",
        ),
        (5, Sequence[int], "expected a list of whole numbers, got 5"),
        ({"a": "x"}, dict[str, int], 'expected a mapping of names to whole numbers, got {"a": "x"} (\'a\' is "x")'),
        ("adamw", Plain, 'expected a node with _target_ for Plain, got "adamw"'),
        ("adamw", Callable[..., int], 'expected a node with _target_ and _partial_: true, got "adamw"'),
    ],
)
def test_wrong_values_say_what_was_expected_and_what_came(value, hint, message):
    assert complaint(value, hint) == message


def test_a_date_is_no_text():
    import datetime

    assert complaint(datetime.date(2025, 1, 1), str) == "expected text, got date"


def test_long_values_are_shortened():
    assert len(shown("x" * 100)) == 60
    assert wanted(list) == "a list"
