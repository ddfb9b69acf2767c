"""Annotations of type hints for the preflight, which say more about a value or a chosen class than its type.

Each class carries its own annotations, in packs as well, so no list of class names is needed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Location:
    """Annotates a parameter that is a path or an address: `path: Annotated[str | None, Location()] = None`.

    If the value looks like a path, the preflight checks that it exists; other values may be names on the Hub.

    Args:
        required: whether the user must set the value, because the YAML leaves it null.
        example: an example of a value, for the message.
        service: whether it names a server or something on one, not a file or an address in object storage.
    """

    required: bool = False
    example: str = "..."
    service: bool = False


@dataclass(frozen=True)
class Having:
    """Annotates a hint that accepts only classes with an attribute: `Annotated[nn.Module, Having("on_lists")]`.

    Args:
        attribute: the attribute's name.
        value: the truth value that it must have; a missing attribute counts as False.
    """

    attribute: str
    value: bool = True


@dataclass(frozen=True)
class ChosenBy:
    """Names the choices that fit a hint, for messages: `Annotated[ListTraining, ChosenBy("training=lists")]`.

    Args:
        words: the choices as on a command line, such as `loss=listwise or loss=binary`, or what they have in common,
            such as `a model of one vector a text`.
    """

    words: str
