"""The folders in which Hydra looks for choices: embfit's own, and those that a user or a team adds.

In this order: embfit's `conf`, each folder of `EMBFIT_CONFIG_PATH`, each installed config pack (a package with an entry
point in the group `embfit.configs`, whose value names the package with the YAMLs), and the user's own folder,
`$XDG_CONFIG_HOME/embfit`. Two files of the same name are an error; none shadows the other.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from embfit import version
from embfit.errors import ConfigError

PACKS = "embfit.configs"  # the entry point group
PERSONAL = (
    "cluster",
    "launcher",
    "logger",
    "trainer",
)  # groups in the user's folder, on which no result depends


@dataclass(frozen=True)
class ConfigSource:
    """A folder of choices.

    Args:
        provider: the name of the provider; for a pack with its version, which a run's record then pins.
        folder: the folder that holds one folder per group.
        package: the Python package whose code its YAMLs may name; None for embfit's own code only.
    """

    provider: str
    folder: Path
    package: str | None = None

    def choices(self) -> Iterator[Path]:
        """Yield its YAML files, relative to the folder, sorted."""
        yield from self.files(".yaml")

    def files(self, suffix: str) -> Iterator[Path]:
        """Yield its files of a kind, relative to the folder, sorted; links to folders are followed."""
        yield from sorted(path.relative_to(self.folder) for path in _below(self.folder, ()) if path.suffix == suffix)


def _below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the files below a folder as Hydra finds them; links to folders are followed, except in cycles."""
    real = folder.resolve()
    if real in above or not os.access(folder, os.R_OK):
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _below(path, (*above, real))
        else:
            yield path


_tried: ContextVar[ConfigSource | None] = ContextVar("tried", default=None)


def house() -> ConfigSource:
    """Return embfit's own choices: inside an installed package, or beside it in a checkout."""
    package = Path(version.__file__).resolve().parent
    folder = next((place for place in (package / "conf", package.parent / "conf") if place.is_dir()), None)
    if folder is None:
        raise ConfigError(f"embfit's conf folder is missing beside {package}; install embfit again")
    return ConfigSource("embfit", folder)


def added_sources() -> list[ConfigSource]:
    """Return the added sources, each folder once; a folder of a pack counts as the pack, whose version pins it.

    Raises:
        ConfigError: a folder or a pack is missing or invalid.
    """
    named = os.environ.get("EMBFIT_CONFIG_PATH", "").split(os.pathsep)
    sources = [_named_folder(Path(folder).expanduser()) for folder in named if folder]
    tried = _tried.get()
    entries = sorted(entry_points(group=PACKS), key=lambda entry: entry.name)
    sources += [_pack(entry) for entry in entries if tried is None or _package(entry) != tried.package]
    if tried is not None:
        sources.append(tried)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "embfit"
    found: dict[Path, ConfigSource] = {}
    for source in sources:
        real = source.folder.resolve()
        if real not in found or (found[real].package is None and source.package is not None):
            found[real] = source
    if home.is_dir() and home.resolve() not in found:
        found[home.resolve()] = _personal(home)
    found.pop(house().folder.resolve(), None)
    return list(found.values())


def packs() -> frozenset[str]:
    """Return the top-level Python packages that installed config packs bring."""
    installed = {_package(entry) for entry in entry_points(group=PACKS)}
    tried = _tried.get()
    return frozenset(installed | ({tried.package} if tried is not None and tried.package else set()))


@contextmanager
def trying(source: ConfigSource) -> Iterator[None]:
    """Treat a pack as installed during the block; it replaces an installed one with the same code."""
    token = _tried.set(source)
    try:
        yield
    finally:
        _tried.reset(token)


def check_sources(sources: list[ConfigSource]) -> None:
    """Check that each choice is written only once.

    Raises:
        ConfigError: two files give the same choice, or a file has a name or encoding that Hydra does not read.
    """
    seen: dict[Path, ConfigSource] = {}
    for source in sources:
        for stray in source.files(".yml"):
            raise ConfigError(f"{source.folder / stray} is not read; name it {stray.with_suffix('.yaml').name}")
        for choice in source.choices():
            _check_encoding(source.folder / choice)
            if choice in seen:
                first = seen[choice]
                raise ConfigError(
                    f"'{choice.with_suffix('')}' is written twice: {source.folder / choice} ({source.provider}) "
                    f"shadows {first.folder / choice} ({first.provider}); rename one"
                )
            seen[choice] = source


class EmbfitSearchPath(SearchPathPlugin):
    """Adds a user's and a team's folders to Hydra's search path; `make_loader` registers it in this process."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the added sources after embfit's own."""
        for source in added_sources():
            search_path.append(source.provider, f"file://{source.folder}")


def _package(entry: EntryPoint) -> str:
    return entry.value.split(":")[0].split(".")[0]


def _check_encoding(file: Path) -> None:
    try:
        file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _named_folder(folder: Path) -> ConfigSource:
    if not folder.is_dir():
        raise ConfigError(f"EMBFIT_CONFIG_PATH names {folder}, which is not a folder")
    return ConfigSource(str(folder), folder.absolute())


def _pack(entry: EntryPoint) -> ConfigSource:
    """Find a pack's folder without importing the pack, whose code must not run for `--help`."""
    module = entry.value.split(":")[0]
    top, *rest = module.split(".")
    provider = f"{entry.dist.name}=={entry.dist.version}" if entry.dist else entry.name
    spec = importlib.util.find_spec(top)
    for place in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(place).joinpath(*rest)
        if folder.is_dir():
            return ConfigSource(provider, folder.absolute(), package=top)
    raise ConfigError(f"the config pack {provider} names {module}, which is not a package folder; mend or uninstall it")


def _personal(home: Path) -> ConfigSource:
    source = ConfigSource("user", home)
    for choice in source.choices():
        if choice.parts[0] not in PERSONAL:
            raise ConfigError(
                f"{home / choice} is not read: a user's own folder holds the groups {', '.join(PERSONAL)} alone, so "
                "that results do not depend on it; put it in a folder of EMBFIT_CONFIG_PATH or in a pack"
            )
    return source
