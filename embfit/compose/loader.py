"""Hydra's loader for embfit's choices and those that users and teams add."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra import version
from hydra._internal import defaults_list as hydra_defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import GroupDefault, InputDefault, ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from embfit.compose import search_path
from embfit.compose.replaced_choices import LeftOut, left_out

CONFIG = "config"  # the primary file: conf/config.yaml
REFUSALS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError, AssertionError)

log = logging.getLogger(__name__)

_all_choices = hydra_defaults_list._create_interpolation_map


def _choices_to_name(overrides: Overrides, defaults_list: list[InputDefault], self_added: bool) -> DictConfig:
    """Return the choices so far, for the interpolations of a file's defaults list; empty for a list without any.

    Hydra (1.3.8) collects all choices for every file, which takes a third of the time of a composition.
    """
    if any(default.is_interpolation() for default in defaults_list):
        return _all_choices(overrides, defaults_list, self_added)
    return OmegaConf.create()


hydra_defaults_list._create_interpolation_map = _choices_to_name


class ReadOnce(ConfigRepository):
    """Parses each file of choices once, although a command composes several times, and a sweep for every job."""

    _of_packages: ClassVar[dict[tuple[str, str], ConfigResult | None]] = {}  # Hydra's own, the same for all loaders

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Set the folders to search."""
        super().initialize_sources(config_search_path)
        self._read: dict[tuple[str, str], ConfigResult | None] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return a choice, which the caller must not change."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None:
            return None
        read = self._of_packages if source.scheme() == "pkg" else self._read
        key = (source.path, config_path)
        if key not in read:
            read[key] = super().load_config(config_path)
        return read[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> ReadOnce:
        """Return a repository of the same folders; Hydra copies it for every composition."""
        return copy.copy(self)


class Loader(ConfigLoaderImpl):
    """Hydra's loader, which also accepts `GROUP=null` to leave a group out (Hydra only knows `~GROUP`)."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = ReadOnce(config_search_path)
        self._defaults_lists: dict[tuple[str | None, tuple[str, ...], RunMode], DefaultsList] = {}
        self._left_out: dict[tuple[str, ...], list[LeftOut]] = {}
        self._said: set[str] = set()

    def load_configuration(self, config_name: str | None, overrides: list[str], *rest: Any, **named: Any) -> DictConfig:
        """Compose like Hydra, after `completed` has rewritten the overrides."""
        config = super().load_configuration(config_name, self.completed(overrides), *rest, **named)
        with open_dict(config):
            for group in {one.group for one in self._left_out[tuple(self.normal(overrides))]}:
                if config[group] == {}:  # GROUP=null, and all that stood there were the experiment's keys
                    del config[group]
        return config

    def compute_defaults_list(self, config_name: str | None, overrides: list[str], run_mode: RunMode) -> DefaultsList:
        """Return the files that overrides compose, in order; cached by the overrides."""
        key = (config_name, tuple(overrides), run_mode)
        if key not in self._defaults_lists:
            self._defaults_lists[key] = super().compute_defaults_list(config_name, overrides, run_mode)
        return self._defaults_lists[key]

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        """Return a copy of a cached file, because merging changes it."""
        loaded = super()._load_single_config(default, repo)
        return copy.deepcopy(loaded) if loaded is repo.load_config(str(default.config_path)) else loaded

    def normal(self, overrides: Sequence[str]) -> list[str]:
        """Return overrides as Hydra takes them: `GROUP=null` becomes `~GROUP`."""
        nothing = (re.fullmatch(r"([\w/-]+)=null", override) for override in overrides)
        return [
            f"~{match[1]}" if match and self.repository.group_exists(match[1]) else override
            for match, override in zip(nothing, overrides, strict=True)
        ]

    def completed(self, overrides: Sequence[str]) -> list[str]:
        """Return normal overrides, and `~KEY` for each key that an experiment sets for a choice that is replaced."""
        normal = self.normal(overrides)
        if tuple(normal) not in self._left_out:
            self._left_out[tuple(normal)] = left_out(self, normal)
        omitted = self._left_out[tuple(normal)]
        for one in omitted:
            if str(one) not in self._said:
                self._said.add(str(one))
                log.info("%s", one)
        return [*normal, *(override for one in omitted for override in one.overrides)]

    def groups(self) -> list[str]:
        """Return the names of the top-level groups, Hydra's own left out."""
        return [group for group in self.list_groups("") if group != "hydra"]

    def choices(self, group: str) -> list[str]:
        """Return a group's choices."""
        return self.get_group_options(group, ObjectType.CONFIG)

    def defaults(self) -> dict[str, str | None]:
        """Return the groups for which embfit chooses something, or null, with that choice, in its own order."""
        primary = self.repository.load_config(CONFIG)
        listed = (primary.defaults_list if primary else None) or []
        return {
            str(item.group): item.value if isinstance(item.value, str) else None
            for item in listed
            if isinstance(item, GroupDefault) and not item.override
        }

    def layout(self, overrides: Sequence[str]) -> DefaultsList | None:
        """Return the files that overrides compose, without those of several values; None if an override is wrong."""
        try:
            parsed = OverridesParser.create(self).parse_overrides(list(overrides))
            still = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
            return self.compute_defaults_list(CONFIG, still, RunMode.RUN)
        except REFUSALS:
            return None  # composing reports what is wrong

    def merged(self, files: Sequence[ResultDefault]) -> dict[str, Any]:
        """Return what files set together, each at its place, as it is written; nothing if they do not compose."""
        try:
            config = self._compose_config_from_defaults_list(list(files), CachingConfigRepository(self.repository))
            values: Any = OmegaConf.to_container(config, resolve=False)
        except REFUSALS:
            return {}
        return {str(key): value for key, value in values.items()}

    def file(self, choice: str) -> Path | None:
        """Return the file of a choice (`model/minilm`), None where there is none on the disk."""
        source = next((source for source in self.get_sources() if source.is_config(choice)), None)
        return Path(source.path) / f"{choice}.yaml" if source and source.scheme() == "file" else None


def make_loader() -> Loader:
    """Return a loader.

    Raises:
        ConfigError: an added folder is missing, or shadows a choice.
    """
    version.setbase("1.3")
    setup_globals()  # ${now:...} and ${hydra:...}
    Plugins.instance().register(search_path.EmbfitSearchPath)
    house = search_path.house()
    search_path.check_sources([house, *search_path.added_sources()])
    return Loader(create_config_search_path(str(house.folder)))
