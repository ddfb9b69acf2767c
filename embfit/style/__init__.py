"""Styles: the kinds of queries that a generator writes, each with a template that a team can edit and share."""

from embfit.style.examples import FewShot, StyleExample
from embfit.style.style import Style
from embfit.style.template import Template

__all__ = ["FewShot", "Style", "StyleExample", "Template"]
