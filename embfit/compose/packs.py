"""Holds the choices of a config pack to embfit's checks, installed or not yet."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embfit.compose.command_line import parse
from embfit.compose.composition import check_composed, compose
from embfit.compose.help import purpose
from embfit.compose.loader import make_loader
from embfit.compose.search_path import PACKS, ConfigSource, trying
from embfit.errors import ConfigError


def pack_at(path: Path) -> ConfigSource:
    """Return the pack whose project is in a folder, or a plain folder of choices.

    Raises:
        ConfigError: the folder is neither.
    """
    project = path / "pyproject.toml"
    if project.is_file():
        return _project(project)
    if not path.is_dir() or not any(path.glob("*/*.yaml")):
        raise ConfigError(f"{path} is neither a pack's project (pyproject.toml) nor a folder of GROUP/NAME.yaml files")
    return ConfigSource(str(path), path.absolute())


def check_choice(pack: ConfigSource, choice: Path) -> None:
    """Compose and check the command of a choice: the one that its second line states, else `GROUP=NAME` alone.

    Nothing is read or computed. The pack counts as installed meanwhile, in the place of an installed one of its name.

    Args:
        pack: the pack that has the choice.
        choice: the file of the choice, relative to the pack's folder.

    Raises:
        ConfigError: it is badly named, does not compose, or does not fit the code that it names.
    """
    file = pack.folder / choice
    if choice.parts[0] == "hydra":
        return  # Hydra's own groups are chosen on their own terms
    if len(choice.parts) != 2:
        raise ConfigError(f"{file} must be GROUP/NAME.yaml; names are flat, such as model/legal-bge.yaml")
    if not purpose(file):
        raise ConfigError(f"{file}:1: begin with a comment line on when to choose it; --help shows that line")
    with _importable(pack), trying(pack):
        loader = make_loader()
        overrides = _command(file, f"{choice.parts[0]}={choice.stem}")
        check_composed(loader, compose(loader, overrides), overrides)


def _command(file: Path, choice: str) -> list[str]:
    """Return the overrides of the command with which a file says that it is used."""
    text = file.read_text(encoding="utf-8")
    stated = re.search(r"^# (?:python -m )?embfit (.+)$", text, re.MULTILINE)
    if stated is None:
        return [choice]
    try:
        line = parse(shlex.split(stated[1], comments=True))
    except (ValueError, ConfigError) as error:
        number = text.count("\n", 0, stated.start()) + 1
        raise ConfigError(f"{file}:{number}: its command cannot be read: {error}") from error
    if line.action != "run":
        return [choice]
    group, _, name = choice.partition("=")  # also at a place of its own: +style@generator.styles.ticket=ticket
    chosen = re.compile(rf"\+?{re.escape(group)}(@[^=]+)?={re.escape(name)}")
    if not any(map(chosen.fullmatch, line.overrides)):
        raise ConfigError(f"{file}: its command does not choose it; write # python -m embfit {choice} ...")
    return line.overrides


def _project(project: Path) -> ConfigSource:
    try:
        stated = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{project} describes no package: {error}") from error
    entries = stated.get("entry-points", {}).get(PACKS, {})
    if len(entries) != 1:
        raise ConfigError(
            f'{project} names no pack; add [project.entry-points."{PACKS}"] with one NAME = "PACKAGE.conf"'
        )
    [module] = entries.values()
    parts = str(module).split(".")
    for root in (project.parent, project.parent / "src"):
        folder = root.joinpath(*parts)
        if folder.is_dir():
            provider = f"{stated['name']}=={stated.get('version', 'dev')}"
            return ConfigSource(provider, folder.absolute(), package=parts[0])
    raise ConfigError(f"{project} names the package {module}, and there is no such folder beside it or under src")


@contextmanager
def _importable(pack: ConfigSource) -> Iterator[None]:
    """Let the pack's own code be found, as it will be once it is installed."""
    if pack.package is None:
        yield
        return
    root = next(folder.parent for folder in (pack.folder, *pack.folder.parents) if folder.name == pack.package)
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
