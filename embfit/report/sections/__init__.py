"""The sections of the page. Each is one module here with a template of the same name, and nothing else lists it.

A module has `section`, which returns what its template shows, `title` among it, or None where there is nothing to say,
and `PLACE`, a number by which the page orders its sections; they are tens, so that another can come between two.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

from embfit.report.subject import Subject

Section: TypeAlias = Callable[[Subject], Mapping[str, Any] | None]


@cache
def sections() -> Mapping[str, Section]:
    """Return the sections by name, in the order of the page."""
    modules = {found.name: import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)}
    return {name: module.section for name, module in sorted(modules.items(), key=lambda item: item[1].PLACE)}
