"""Composes one configuration through Hydra, with embfit's own error messages.

Hydra's `hydra.main` ends the process itself and answers every mistake with exit code 1 and a page of text. So embfit
uses only its parts: the loader and its session here, and printing and completion in `app`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from embfit.compose.hydra_errors import WrongOverridesError, readable_errors, suspicious
from embfit.compose.loader import CONFIG, Loader
from embfit.compose.preflight import check, wrong_values
from embfit.compose.problems import Problem, ProblemsError, refuse
from embfit.compose.provenance import trace
from embfit.compose.value_origins import COMMAND_LINE, Origins, leaves
from embfit.errors import first_line


@dataclass(frozen=True)
class ResolvedConfig:
    """A composed configuration as plain values, independent of Hydra.

    Args:
        values: the configuration, resolved.
        origins: where each leaf was written.
        raw: the configuration before interpolations were resolved.
    """

    values: dict[str, Any]
    origins: Origins
    raw: DictConfig


@contextmanager
def hydra_session(loader: Loader) -> Iterator[Hydra]:
    """Hold Hydra's global application object during the block; its plugins read it."""
    GlobalHydra.instance().clear()
    hydra = Hydra(task_name="embfit", config_loader=loader)
    GlobalHydra.instance().initialize(hydra)
    try:
        yield hydra
    finally:
        GlobalHydra.instance().clear()


def compose(loader: Loader, overrides: Sequence[str], multirun: bool = False) -> DictConfig:
    """Compose one configuration, with Hydra's own settings under `hydra`.

    Raises:
        ConfigError: an override or a file is wrong; the message names every wrong override.
    """
    mode = RunMode.MULTIRUN if multirun else RunMode.RUN
    try:
        with readable_errors(loader, overrides, multirun):
            config = loader.load_configuration(CONFIG, list(overrides), run_mode=mode)
    except WrongOverridesError as error:
        refuse(dict.fromkeys([*error.lines, *_wrong_values(loader, error.sound, error.choices_known)]))
        raise
    refuse(suspicious(loader, overrides))
    return config


def _wrong_values(loader: Loader, overrides: Sequence[str], complete: bool) -> Iterator[str]:
    """Yield the problems of overrides' values; an override may name several values.

    Args:
        loader: the loader that composes them.
        overrides: the overrides that compose.
        complete: whether all choices are right, so that they can be checked against each other.
    """
    if not overrides:
        return
    parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
    fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    varied = [override for override in parsed if override.is_discrete_sweep()]
    named = [f"{override.get_key_element()}={text}" for override in varied for text in _named(override)]
    for one in [[], *([text] for text in named)]:
        try:
            config = compose(loader, [*fixed, *one])
            if complete and not varied:
                check_composed(loader, config, fixed)
            found = resolve_config(loader, config, [*fixed, *one])
            yield from map(str, wrong_values(found.values, found.origins, loader.groups()))
        except ProblemsError as error:
            yield from error.lines


def _named(override: Override) -> list[str]:
    """Return the values that a sweep's override names; for a range, its two ends."""
    texts = list(map(str, override.sweep_string_iterator()))
    return [texts[0], texts[-1]] if override.is_range_sweep() and texts else texts


def overrides_of(config: DictConfig) -> list[str]:
    """Return the overrides of a configuration, without Hydra's own."""
    return [str(override) for override in config.hydra.overrides.task]


def resolve_config(
    loader: Loader, config: DictConfig, overrides: Sequence[str], own: Mapping[str, Any] | None = None, by: str = ""
) -> ResolvedConfig:
    """Resolve a composed configuration.

    Args:
        loader: the loader that composed it.
        config: the configuration, with Hydra's settings.
        overrides: the overrides that it was composed with.
        own: values that replace others before it is resolved.
        by: the source of these values, for the provenance.

    Raises:
        ConfigError: an interpolation points nowhere.
    """
    origins = trace(loader, overrides)
    ours = without_hydra(config)
    with open_dict(ours):
        ours.merge_with(own or {})
    for key, value in leaves(own or {}):
        origins.put(key, by, value)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(copy.deepcopy(config))  # ${hydra:...} looks there; what is set is frozen
    try:
        return ResolvedConfig(resolve(ours, origins), origins, ours)
    finally:
        HydraConfig.instance().cfg = before


def check_composed(loader: Loader, config: DictConfig, overrides: Sequence[str]) -> ResolvedConfig:
    """Resolve a composed configuration, and check it against the code that it will call.

    Raises:
        ConfigError: one line per problem.
    """
    found = resolve_config(loader, config, overrides)
    refuse_resume_in_files(found.values, found.origins)
    check(found.values, found.origins, loader.groups(), found.raw)
    return found


def resolve_all(loader: Loader, overrides: Sequence[str]) -> tuple[dict[str, Any], Origins]:
    """Return the resolved values that overrides compose, and where each was written, without checking them.

    Raises:
        ConfigError: the overrides do not compose.
    """
    found = resolve_config(loader, compose(loader, overrides), overrides)
    return found.values, found.origins


def without_hydra(config: DictConfig) -> DictConfig:
    """Return a copy with only embfit's own groups and keys."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def resolve(config: DictConfig, origins: Mapping[str, str]) -> dict[str, Any]:
    """Return a configuration without Hydra's part as plain values; a missing value is `???`.

    Raises:
        ConfigError: an interpolation points nowhere; every such place is named.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:
        refuse(_unresolved(config, origins, ""))
        raise
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _unresolved(node: DictConfig, origins: Mapping[str, str], prefix: str) -> Iterator[Problem]:
    for key in map(str, node):
        path = f"{prefix}{key}"
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            if not OmegaConf.is_missing(node, key):
                reason = first_line(error).removeprefix("KeyError raised while resolving interpolation: ")
                yield Problem(path, reason.strip('"'), origins.get(path, ""))
            continue
        if isinstance(value, DictConfig) and not OmegaConf.is_interpolation(node, key):
            yield from _unresolved(value, origins, f"{path}.")


def refuse_resume_in_files(values: Mapping[str, Any], origins: Origins) -> None:
    """Refuse a `resume` that a file gives: only the command line may ask to resume.

    Raises:
        ConfigError: a file sets it.
    """
    folder, place = values.get("resume"), origins.find("resume")
    if folder is not None and place != COMMAND_LINE:
        refuse([Problem("resume", f"{folder} would be ignored; type it on the command line: resume={folder}", place)])
