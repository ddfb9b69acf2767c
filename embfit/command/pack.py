"""`embfit pack`: config packs, the pip packages in which teams share choices."""

from __future__ import annotations

import argparse
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
        ConfigError: wrong arguments, a choice that does not pass, or a pack that cannot be made.
    """
    given = _parser().parse_args(list(arguments))
    given.do(given)


def _parser() -> Parser:
    parser = Parser(prog="embfit pack", description="Config packs: pip packages in which teams share choices.")
    verbs = parser.add_subparsers(required=True, metavar="new|check|list")
    new = verbs.add_parser("new", help="write a pack to begin with")
    new.add_argument("name", help="such as legal-search; begins the names of its choices")
    new.add_argument("--dir", type=Path, default=Path(), help="where its folder is made (default: here)")
    new.set_defaults(do=_new)
    check = verbs.add_parser("check", help="hold every YAML of a pack to the code that it names")
    check.add_argument("path", nargs="?", type=Path, default=Path(), help="a pack's project, or a folder of YAMLs")
    check.set_defaults(do=_check)
    listing = verbs.add_parser("list", help="show installed packs and folders, and what they add")
    listing.set_defaults(do=_list)
    return parser


def _new(given: argparse.Namespace) -> None:
    folder = write_pack(given.name, given.dir)
    print(f"{folder}: a pack to begin with; its README.md says what is where")
    print(f"check it     embfit pack check {folder}\ninstall it   pip install -e {folder}")
    print(f"choose it    python -m embfit experiment={given.name}")


def _check(given: argparse.Namespace) -> None:
    pack = pack_at(given.path)
    wrong = 0
    names = list(pack.choices())
    if not names:
        raise ConfigError(f"{pack.provider}: there are no choices in {pack.folder}; add GROUP/NAME.yaml")
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
        print("no packs are installed, and EMBFIT_CONFIG_PATH names no folder; embfit pack new NAME begins a pack")
    for source in sources:
        print(f"{source.provider}  {source.folder}")
        for choice in source.choices():
            print(f"  {choice.parent}={choice.stem}  {purpose(source.folder / choice)}".rstrip())
