"""Hydra's loader over embfit's choices and those that a user or a team adds to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.default_element import GroupDefault
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from omegaconf import DictConfig

from embfit.compose import search_path

CONFIG = "config"  # the primary file: conf/config.yaml


class Loader(ConfigLoaderImpl):
    """Hydra's loader, for which `GROUP=null` leaves a group out (Hydra wants `~GROUP`, and tells nobody)."""

    def load_configuration(self, config_name: str | None, overrides: list[str], *rest: Any, **named: Any) -> DictConfig:
        """Compose; Hydra's own, with the overrides as above."""
        return super().load_configuration(config_name, self.normal(overrides), *rest, **named)

    def normal(self, overrides: Sequence[str]) -> list[str]:
        """Write overrides in Hydra's own words."""
        nothing = (re.fullmatch(r"([\w/-]+)=null", override) for override in overrides)
        return [
            f"~{match[1]}" if match and self.repository.group_exists(match[1]) else override
            for match, override in zip(nothing, overrides, strict=True)
        ]

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

    def file(self, choice: str) -> Path | None:
        """Return the file of a choice (`model/minilm`), None where there is none on the disk."""
        source = next((source for source in self.get_sources() if source.is_config(choice)), None)
        return Path(source.path) / f"{choice}.yaml" if source and source.scheme() == "file" else None


def make_loader(kind: type[Loader] = Loader) -> Loader:
    """Return a loader.

    Raises:
        ConfigError: an added folder is missing, or shadows a choice.
    """
    version.setbase("1.3")
    setup_globals()  # ${now:...} and ${hydra:...}
    Plugins.instance().register(search_path.EmbfitSearchPath)
    house = search_path.house()
    search_path.check_sources([house, *search_path.added_sources()])
    return kind(create_config_search_path(str(house.folder)))
