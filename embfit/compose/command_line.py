"""The command line: Hydra's overrides and the options that go with them."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from embfit.compose import search_path
from embfit.compose.tasks import free_text_keys, task_names
from embfit.errors import ConfigError
from embfit.version import __version__

HYDRAS_JOBS = ("hydra.callbacks", "hydra.job.chdir", "hydra.job.env_")  # how Hydra runs jobs; embfit runs its own
COMMANDS: Mapping[str, str] = {
    "bundle": "versions that can be served: list, verify, promote, rollback, prune, diff, push, pull",
    "pack": "share choices between teams: new, check, list",
    "review": "a page on which people keep or drop generated queries",
    "judge": "a page on which people judge first results, and their judgements as qrels",
    "runs": "what was run: list, explain, diff, clean",
    "store": "what the store keeps: list, prune",
    "doctor": "what this machine has, and what the next run would do",
    "schema": "JSON schemas, with which editors complete and check YAML files",
}
"""First words that are commands, and what each is for. A task's name as the first word chooses the task, and everything
else on a command line is Hydra's."""

EXPLAIN = "task=explain"  # --explain, for the default task


Action: TypeAlias = Literal["run", "multirun", "show", "explain", "help", "version", "info", "completion"]
"""What a command line asks to do with the configuration."""


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line.

    Args:
        overrides: `GROUP=CHOICE` and `KEY=VALUE`, in Hydra's grammar.
        action: what to do with the configuration.
        show: the part of the configuration that `show` prints.
        package: the key below which `show` and `explain` print it.
        resolve: whether `show` replaces interpolations by values.
        about: the topic of `info`; for `help`, a group or `all`.
    """

    overrides: list[str]
    action: Action = "run"
    show: Literal["job", "hydra", "all"] = "job"
    package: str | None = None
    resolve: bool = False
    about: str = "all"


def parse(arguments: Sequence[str]) -> CommandLine:
    """Read the command line.

    Raises:
        ConfigError: an unknown option, or options that exclude each other.
    """
    words = list(arguments)
    task = words[0] if words and words[0] in task_names(_folders()) else None
    if task is not None:
        words[0] = f"task={task}"
    given = parser().parse_intermixed_args(words)
    if task is not None and given.help == "":
        given.help = "task"
    if _is_override(given.explain or ""):
        given.overrides.insert(0, given.explain)  # `--explain model=bge-small`: no key was given
        given.explain = ""
    free_text = free_text_keys(_folders()) if given.overrides else set()
    overrides = [_in_hydras_grammar(override, free_text) for override in given.overrides]
    if EXPLAIN in overrides:
        overrides.remove(EXPLAIN)
        given.explain = given.explain or ""
    asked: dict[Action, bool] = {
        "help": given.help is not None,
        "version": given.version,
        "show": given.cfg is not None,
        "explain": given.explain is not None,
        "multirun": given.multirun,
        "completion": given.shell_completion,
        "info": given.info is not None,
    }
    actions = [action for action, wanted in asked.items() if wanted]
    if "help" in actions or "version" in actions:
        actions = actions[:1]
    if len(actions) > 1:
        raise ConfigError(
            "only one of --multirun, --cfg, --explain, --info and --shell-completion can be used at a time"
        )
    if (given.resolve or given.package) and "show" not in actions:
        raise ConfigError("--resolve and --package go with --cfg, such as --cfg job --resolve")
    return CommandLine(
        overrides=overrides,
        action=actions[0] if actions else "run",
        show=given.cfg or "job",
        package=given.package or given.explain,
        resolve=given.resolve,
        about=given.help or given.info or "all",
    )


class Parser(argparse.ArgumentParser):
    """A parser that raises `ConfigError`, so that its errors are shown like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise an error, where argparse would print a page of usage and exit."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def parser() -> Parser:
    """Return the parser of embfit's command line."""
    parser = Parser(prog="python -m embfit", add_help=False, allow_abbrev=False)
    add = parser.add_argument
    add("overrides", nargs="*", help=argparse.SUPPRESS)
    add("-h", "--help", nargs="?", const="", metavar="GROUP", help="show this text, or a group's choices and keys")
    add("--version", action="store_true", help="show embfit's version")
    add("-m", "--multirun", action="store_true", help="run one job for each combination of comma-separated values")
    add(
        "-c", "--cfg", choices=("job", "hydra", "all"), metavar="PART", help="show the configuration: job, hydra or all"
    )
    add("-p", "--package", metavar="KEY", help="with --cfg: only what is below a key")
    add("--resolve", action="store_true", help="with --cfg: show values instead of ${...}")
    add("--explain", nargs="?", const="", metavar="KEY", help="show where each value (at KEY) was written")
    kinds = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    add("-i", "--info", nargs="?", const="all", choices=kinds, metavar="WHAT", help=f"show one of {', '.join(kinds)}")
    add("-sc", "--shell-completion", action="store_true", help='complete in bash: eval "$(embfit -sc install=bash)"')
    return parser


def flags() -> str:
    """Return the description of the options, for `--help`."""
    text = parser().format_help()
    return text[text.index("options:") :].replace("options:", "Options:")


def version_line() -> str:
    """Return what `--version` prints."""
    return f"embfit {__version__}"


def refuse_ignored(overrides: Sequence[str], folders: Sequence[str]) -> None:
    """Refuse Hydra's keys that embfit would ignore: for folders, which `run.dir` names, and for running jobs.

    Args:
        overrides: the command line.
        folders: the keys with which Hydra names folders.

    Raises:
        ConfigError: one of them is set.
    """
    for override in overrides:
        key, value = key_and_value(override)
        if key in folders:
            raise ConfigError(f"{override} would be ignored; set run.dir={value}")
        if key.startswith(HYDRAS_JOBS):
            raise ConfigError(f"{override} would be ignored: embfit runs its jobs without Hydra")


def key_and_value(override: str) -> tuple[str, str]:
    """Return the key of an override, without leading plus signs, and its value as typed."""
    key, _, value = override.partition("=")
    return key.lstrip("+"), value


def _folders() -> list[Path]:
    """Return the folders of choices, including those of config packs."""
    sources = [search_path.house()]
    with suppress(ConfigError):  # the loader reports what is wrong with an added folder
        sources += search_path.added_sources()
    return [source.folder for source in sources]


def _is_override(word: str) -> bool:
    return "=" in word or word.startswith(("~", "+"))


def _in_hydras_grammar(override: str, free_text: set[str]) -> str:
    """Quote a sentence, or a path from the home folder, in Hydra's grammar, unless the user has quoted it.

    `query=what's this, then?` is one sentence. A shell leaves the `~` of `data.path=~/x` to us.

    Args:
        override: the override as it was typed.
        free_text: keys whose values are sentences, commas, quotes and question marks included.
    """
    written, equals, value = override.partition("=")
    if key_and_value(override)[0] not in free_text:
        paths = value.split(",")  # several in a sweep
        at_home = all(re.fullmatch(r"~(/.*)?", path) for path in paths)
        return f"{written}=" + ",".join(quoted(str(Path(path).expanduser())) for path in paths) if at_home else override
    if not equals or value in ("", "null") or _is_one_quoted_text(override):
        return override
    return f"{written}={quoted(value.replace('${', chr(92) + '${'))}"


def _is_one_quoted_text(override: str) -> bool:
    """Return whether the whole value is one quoted text, and not only its first and its last word."""
    with suppress(HydraException):
        return isinstance(OverridesParser.create().parse_override(override)._value, QuotedString)
    return False


def override(key: str, text: str) -> str:
    """Return an override with a text as its value, quoted if Hydra would read it as something else."""
    plain = f"{key}={text}"
    with suppress(HydraException):
        if OverridesParser.create().parse_override(plain).value() == text:
            return plain
    return f"{key}={quoted(text)}"


def typed(key: str, text: str) -> str:
    """Return an override as typed in a shell, for printed commands."""
    return shlex.quote(override(key, text))


def quoted(text: str, quote: Quote = Quote.single) -> str:
    """Quote a text for Hydra, whatever characters it has."""
    return str(QuotedString(text, quote).with_quotes())
