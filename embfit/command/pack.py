"""`embfit pack`: config packs, the pip packages by which teams share choices."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from embfit.command.pack_template import write_pack
from embfit.compose.command_line import Parser
from embfit.compose.help import purpose
from embfit.compose.packs import check_choice, pack_at
from embfit.compose.search_path import added_sources
from embfit.errors import ConfigError


def run(arguments: Sequence[str]) -> None:
    """Run `embfit pack ARGUMENTS`.

    Raises:
        ConfigError: the arguments are wrong, a choice does not pass the check, or the pack cannot be created.
    """
    given = _parser().parse_args(list(arguments))
    given.do(given)


def _parser() -> Parser:
    parser = Parser(
        prog="embfit pack",
        description="Create, check and list config packs: pip packages with which teams share choices.",
    )
    verbs = parser.add_subparsers(required=True, metavar="new|check|list")
    new = verbs.add_parser("new", help="create a new pack")
    new.add_argument("name", help="the pack's name, such as legal-search; its choices' names begin with it")
    new.add_argument("--dir", type=Path, default=Path(), help="where to create the pack's folder (default: here)")
    new.set_defaults(do=_new)
    check = verbs.add_parser("check", help="check every YAML of a pack against the code that it names")
    check.add_argument("path", nargs="?", type=Path, default=Path(), help="a pack's folder, or a folder of YAMLs")
    check.set_defaults(do=_check)
    listing = verbs.add_parser("list", help="list the installed packs and folders, and the choices that they add")
    listing.set_defaults(do=_list)
    return parser


def _new(given: argparse.Namespace) -> None:
    folder = write_pack(given.name, given.dir)
    print(f"{folder} is a new pack; its README.md explains the files")
    place = shlex.quote(str(folder))
    print(f"check it     embfit pack check {place}\ninstall it   pip install -e {place}")
    print(f"choose it    python -m embfit experiment={given.name}")


def _check(given: argparse.Namespace) -> None:
    pack = pack_at(given.path)
    wrong = 0
    names = list(pack.choices())
    if not names:
        raise ConfigError(f"{pack.provider}: {pack.folder} has no choices; add a file GROUP/NAME.yaml")
    for name in names:
        try:
            check_choice(pack, name)
        except ConfigError as error:
            wrong += 1
            print(f"wrong  {name}: {error}")
        else:
            print(f"ok     {name}")
    if wrong:
        raise ConfigError(f"{pack.provider}: {wrong} of {len(names)} choices do not pass")
    print(f"{pack.provider} passes; choices checked: {len(names)}")


def _list(given: argparse.Namespace) -> None:
    sources = added_sources()
    if not sources:
        print("no packs are installed, and EMBFIT_CONFIG_PATH names no folder; embfit pack new NAME creates a pack")
    for source in sources:
        print(f"{source.provider}  {source.folder}")
        for choice in source.choices():
            print(f"  {choice.parent}={choice.stem}  {purpose(source.folder / choice)}".rstrip())
