"""Turns Hydra's errors of composition into short messages with suggestions.

Hydra stops at the first mistake, with advice that embfit's users never need (`To append to your config use +...`).
After an error, the whole command line is checked, so that one message names every wrong group, choice and key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf

from embfit.compose import search_path
from embfit.compose.defaults_list import listed, wrong_entries
from embfit.compose.loader import CONFIG, REFUSALS, Loader
from embfit.compose.problems import Problem, ProblemsError, refuse
from embfit.compose.value_origins import COMMAND_LINE
from embfit.compose.wrong_keys import deletion_problems
from embfit.compose.wrong_overrides import SEVERAL, chosen_names, problems_of, sets_keys, several_choices
from embfit.errors import ConfigError, first_line
from embfit.suggestions import suggestion


class WrongOverridesError(ProblemsError):
    """Overrides that do not compose.

    Args:
        lines: the lines of the message, one for each problem.
        sound: the other overrides, which compose, where some of them set values that are still to be checked; else
            empty.
        choices_known: whether all choices are right, so that values of several groups can be checked together.
    """

    def __init__(self, lines: Iterable[str], sound: Sequence[str], choices_known: bool) -> None:
        super().__init__(lines)
        self.sound = tuple(sound)
        self.choices_known = choices_known


@contextmanager
def readable_errors(loader: Loader, overrides: Sequence[str], multirun: bool = False) -> Iterator[None]:
    """Replace Hydra's errors inside the block by a `ConfigError` with one line for each mistake."""
    try:
        yield
    except REFUSALS as error:
        problems, sound, choices_known = problems_of(loader, overrides, multirun)
        if problems:
            raise WrongOverridesError(map(str, problems), sound, choices_known) from None
        refuse(wrong_entries(loader, _chosen(loader, overrides)))
        raise ConfigError(_condensed(loader, error)) from error


def suspicious(loader: Loader, overrides: Sequence[str]) -> Iterator[Problem]:
    """Yield overrides that compose but must be mistakes: a key that others need is deleted, or choices are merged."""
    parsed = OverridesParser.create(loader).parse_overrides(loader.normal(overrides))
    for override in parsed:
        yield from deletion_problems(override)
    still = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    found = loader.compute_defaults_list(CONFIG, still, RunMode.RUN).overrides
    for element, names in found.override_choices.items():
        if isinstance(names, list) and element.partition("@")[0] in loader.defaults() and element not in SEVERAL:
            by = found.override_metadata[element]
            place = COMMAND_LINE if by.external_override else _entry(loader, str(by.containing_config_path), names)
            yield several_choices(element, names, place)


def _chosen(loader: Loader, overrides: Sequence[str]) -> list[str]:
    """Return the files that a command line chooses; all of its overrides must be readable."""
    parser = OverridesParser.create(loader)
    parsed = [parser.parse_override(text) for text in loader.normal(overrides)]
    return [
        f"{override.key_or_group}/{name}"
        for override in parsed
        if loader.repository.group_exists(override.key_or_group) and not sets_keys(override)
        for name in chosen_names(override)
    ]


def _entry(loader: Loader, choice: str, names: Sequence[str]) -> str:
    """Return the place in a file's defaults list that chooses these."""
    file = loader.file(choice)
    lines = [f":{entry.line}" for entry in listed(file) if entry.value == list(names)] if file else []
    return f"{file or choice}{''.join(lines[:1])}"


def _condensed(loader: Loader, error: Exception) -> str:
    """Return a file's mistake in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}:{mark.line + 1}: {error.problem}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"there is no '{name}' in the group {group}{suggestion(name, error.options or [])}"
    if found := _broken_file(loader):
        return found
    causes = [error, *([error.__cause__] if error.__cause__ else [])]
    lines = [line.strip() for cause in causes for line in str(cause).splitlines()]
    told = [line for line in lines if line and not re.match(r"To append|See http|full_key:|object_type=", line)]
    return "; ".join(line.rstrip(".") for line in dict.fromkeys(told[:2])) or type(error).__name__


def _broken_file(loader: Loader) -> str | None:
    """Find the file that Hydra's message does not name: the first added file that cannot be loaded by itself."""
    for source in search_path.added_sources():
        for choice in source.choices():
            try:
                loaded = loader.repository.load_config(str(choice.with_suffix("")))
                OmegaConf.merge({}, loaded.config if loaded else {})  # also parses its interpolations
            except REFUSALS as error:
                return f"{source.folder / choice}: {first_line(error)}"
    return None
