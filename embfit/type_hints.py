"""Marks on type hints that the preflight reads: what a hint alone cannot say of a value, or of a class that was chosen.

Each class carries its own marks, in a config pack as in embfit, so that no list of class names is needed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Location:
    """Marks a parameter that says where something is: `path: Annotated[str | None, Location()] = None`.

    A value that is written as a path is looked for before there is any work; others may be names on the Hub.

    Args:
        required: whether the value must be set, though the choice's YAML, made for a user's own thing, sets none.
        example: what to write, for the message.
        service: whether it names a server, or something there: no file, and no address in object storage.
    """

    required: bool = False
    example: str = "..."
    service: bool = False


@dataclass(frozen=True)
class Having:
    """Marks a hint that takes only classes with some attribute: `Annotated[nn.Module, Having("on_lists")]`.

    Args:
        attribute: the attribute's name.
        value: what its truth must be; a class without the attribute counts as one that says False.
    """

    attribute: str
    value: bool = True


@dataclass(frozen=True)
class ChosenBy:
    """Marks a hint with the choices that fit it, for messages: `Annotated[ListTraining, ChosenBy("training=lists")]`.

    Args:
        words: the choices as they are typed, such as `loss=listwise or loss=binary`, or what they have in common, such
            as `a model of one vector a text`.
    """

    words: str
