"""A kind of query, such as questions or keywords."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from pydantic import Field

from embfit.style.template import Template, read_template


@dataclass(frozen=True)
class Style:
    """A kind of query, and the prompts for it.

    Args:
        share: the weight of the style among all queries: a style of share 2 gets twice as many as one of share 1, and
            one of share 0 gets none.
        template: the Markdown file for models that follow instructions, which asks for several queries as JSON.
        completion: the Markdown file for base models, which ends where the model continues with one query.
        single: the Markdown file for models that follow instructions and run here, which asks for one query as plain
            text.
        label: the name of such a query in a completion ("Question").
        may_copy: whether the style copies words from the document in their order, as titles and keywords do, so that no
            query of it is dropped as a copy.
    """

    template: str
    share: Annotated[float, Field(ge=0)] = 1.0
    completion: str = "completion.md"
    single: str = "single.md"
    label: str = "Query"
    may_copy: bool = False

    @cached_property
    def instruction(self) -> Template:
        """The template for models that follow instructions."""
        return read_template(self.template)

    @cached_property
    def continuation(self) -> Template:
        """The template for base models."""
        return read_template(self.completion)

    @cached_property
    def alone(self) -> Template:
        """The template that asks for one query in plain text."""
        return read_template(self.single)
