import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from embfit.compose.command_line import CommandLine, flags, parse
from embfit.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        ([], "run"),
        (["-m", "a=1"], "multirun"),
        (["a=1", "--multirun"], "multirun"),
        (["--cfg", "job"], "show"),
        (["--help", "-m"], "help"),
        (["--version"], "version"),
        (["-i"], "info"),
        (["--explain"], "explain"),
        (["a=1", "task=explain"], "explain"),
        (["-sc", "install=bash"], "completion"),
    ],
)
def test_actions(arguments, action):
    assert parse(arguments).action == action


def test_options_may_stand_between_overrides():
    line = parse(["a=1", "--cfg", "all", "b=2", "--resolve", "-p", "model", "~c"])
    assert (line.overrides, line.show, line.package, line.resolve) == (["a=1", "b=2", "~c"], "all", "model", True)


def test_a_key_to_explain_is_no_override():
    assert parse(["--explain", "model.path", "a=1"]) == CommandLine(["a=1"], action="explain", package="model.path")
    assert parse(["--explain", "a=1", "~b"]) == CommandLine(["a=1", "~b"], action="explain", package="")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bogus"], "unrecognized arguments: --bogus; see python -m embfit --help"),
        (["--cfg", "nothing"], "argument -c/--cfg: invalid choice: 'nothing'"),
        (
            ["-m", "--cfg", "job"],
            "only one of --multirun, --cfg, --explain, --info and --shell-completion can be used",
        ),
        (["--resolve"], "--resolve and --package go with --cfg"),
    ],
)
def test_wrong_options(arguments, message):
    with pytest.raises(ConfigError) as error:
        parse(arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("what's this, then?", "what's this, then?"),
        ("a=b (c) [d] {e}", "a=b (c) [d] {e}"),
        (r"back\slash", r"back\slash"),
        ("'quoted already'", "quoted already"),
        ("42", "42"),
        ("true", "true"),
        ("", ""),
    ],
)
def test_a_query_is_a_sentence_whatever_its_signs(typed, value):
    [override] = parse([f"query={typed}"]).overrides
    assert OverridesParser.create().parse_override(override).value() == value


def test_no_query():
    assert parse(["query=null"]).overrides == ["query=null"]


def test_flags_are_described():
    assert flags().startswith("Options:\n  -h [GROUP], --help [GROUP]")


def test_a_path_from_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    line = parse(["data.path=~/a (1)/x", "run.dir=~", "tuned=~/a,~/b", "query=~/a", "miner.path=a~"])
    assert line.overrides == [
        "data.path='/home/me/a (1)/x'",
        "run.dir='/home/me'",
        "tuned='/home/me/a','/home/me/b'",  # a sweep's
        "query='~/a'",
        "miner.path=a~",
    ]


def test_a_task_may_be_the_first_word():
    assert parse(["index", "seed=1", "-m"]) == CommandLine(["task=index", "seed=1"], action="multirun")
    assert parse(["search", "query=what's this, then?"]).overrides[0] == "task=search"
    assert parse(["evaluate", "--explain", "model"]) == CommandLine(["task=evaluate"], "explain", package="model")
    assert parse(["index", "--help"]) == CommandLine(["task=index"], "help", about="task")
    assert parse(["index", "--help", "bundle"]) == CommandLine(["task=index"], "help", about="bundle")
    assert parse(["--help"]).about == "all"
    assert parse(["seed=1", "index"]).overrides == ["seed=1", "index"]  # which composing refuses
