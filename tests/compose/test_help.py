import sys

import pytest

from embfit.compose.help import about, overview, purpose
from embfit.compose.loader import make_loader
from embfit.errors import ConfigError


def test_every_choice_with_its_first_line_and_the_default_marked(house):
    text = overview(make_loader(), "Options:\n  --help")
    assert "\nmodel=\n    legal  For contracts.\n  * small  For everything.\n" in text
    assert "\nexperiment=\n    deep  To look deep.\n" in text
    assert text.index("task=\n") < text.index("model=\n") < text.index("experiment=\n")
    assert text.endswith("Options:\n  --help")
    assert "acme" not in sys.modules


def test_one_group_or_one_choice_with_its_keys(house):
    loader = make_loader()
    text = about(loader, "model")
    assert text.startswith(
        "model=\n    legal  For contracts.\n  * small  For everything.\n\nKeys of model=small, from "
    )
    assert text.endswith("\nseed: ${seed}")
    assert about(loader, "model=legal").startswith("Keys of model=legal, from ")
    told = "experiment=\n    deep  To look deep.\n\nKeys of a choice: python -m embfit --help experiment=deep"
    assert about(loader, "experiment") == told
    with pytest.raises(ConfigError, match=r"--help modle: there is no such group; did you mean 'model'\?"):
        about(loader, "modle")
    with pytest.raises(ConfigError, match="--help model=big: there is no such choice; it is one of legal, small"):
        about(loader, "model=big")


def test_a_choice_shows_what_it_builds_on(house, monkeypatch):
    file = house / "team" / "model" / "short.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# Short.\ndefaults: [legal, /loss@loss: plain, _self_]\ndepth: 2\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    text = about(make_loader(), "model=short")
    assert text.startswith(f"Keys of model=short, from {file}:\n\n# Short.\n")
    assert "\ndepth: 2\n\nBuilt on model=legal, from " in text
    assert text.count("Built on") == 1
    assert "path: lawful" in text


def test_what_is_longer_than_a_line_goes_on_below(house, monkeypatch):
    file = house / "team" / "model" / "big.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# {'word ' * 30}end.\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    monkeypatch.setenv("COLUMNS", "80")
    text = overview(make_loader(), "")
    lines = text[text.index("    big  ") :].splitlines()
    assert lines[:4] == [
        f"    big    {' '.join(['word'] * 14)}",
        f"           {' '.join(['word'] * 14)}",
        "           word word end.",
        "    legal  For contracts.",
    ]


def test_purpose_is_the_first_comment_that_is_no_header(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("# @package _global_\n\n# When.\n# How.\na: 1\n")
    assert purpose(file) == "When."
    file.write_text("a: 1\n# Late.\n")
    assert purpose(file) == ""
    assert purpose(None) == ""
