"""A choice on the command line beside an experiment that sets keys for another choice."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from embfit.app import main
from embfit.compose.composition import check_composed, compose, hydra_session, overrides_of, resolve_all
from embfit.compose.loader import Loader, make_loader
from embfit.compose.replaced_choices import left_out
from embfit.errors import ConfigError
from embfit.sweep.best_experiment import write_experiment


@pytest.fixture(scope="module")
def loader() -> Loader:
    return make_loader()


def values(loader: Loader, *overrides: str) -> tuple[dict, list[str]]:
    """Return the checked values of a command line, and the overrides that were added to it."""
    with hydra_session(loader):
        config = compose(loader, overrides)
        found = check_composed(loader, config, overrides)
    return found.values, [text for text in overrides_of(config) if text not in overrides]


def test_a_key_of_the_replaced_choice_is_left_out(loader: Loader, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found, added = values(loader, "experiment=colbert", "loss=mrl")
    assert added == ["~loss.temperature"]
    assert "temperature" not in found["loss"]
    assert found["training"]["lr"] == 1e-4  # what it sets for other groups stays
    said = "loss.temperature is left out: experiment=colbert sets it for loss=infonce, and loss=mrl has no such key"
    values(loader, "experiment=colbert", "loss=mrl")
    assert [record.message for record in caplog.records].count(said) == 1


def test_a_key_that_both_choices_have_stays(loader: Loader) -> None:
    found, added = values(loader, "experiment=distill", "miner=bm25", "loss=infonce")
    assert (found["miner"]["negatives"], added) == (4, [])
    found, added = values(loader, "experiment=large-batch", "loss=infonce")
    assert (found["loss"]["query_query"], added) == (True, [])


def test_a_choice_that_another_choice_makes(loader: Loader) -> None:
    found, added = values(loader, "experiment=large-batch", "model=cross-encoder")
    assert added == ["~loss.query_query"]
    assert found["loss"]["_target_"].endswith("Listwise")


def test_a_key_without_a_value_is_left_out(loader: Loader, tmp_path: Path) -> None:
    found, added = values(loader, "experiment=code-search", "data=documents", f"data.path={tmp_path}")
    assert added == ["data.max_train=0", "~data.max_train"]
    assert "max_train" not in found["data"]


def test_what_is_typed_is_never_left_out(loader: Loader) -> None:
    with pytest.raises(ConfigError, match=r"has no 'temperature'.*command line"):
        values(loader, "experiment=colbert", "loss=mrl", "loss.temperature=0.1")
    assert values(loader, "experiment=colbert", "loss=mrl", "~loss.temperature")[1] == []


def test_every_experiment_with_every_choice(loader: Loader) -> None:
    """These are all the keys that are left out, and no others are unknown to the new choice."""
    late = ("answerai-colbert-small", "colbert", "colbertv2", "gte-moderncolbert")
    nesting = ("hybrid", "none", "scored")  # miners without a number of negatives of their own
    length = {f"model={name}": ["model.max_length"] for name in late}
    few = {f"miner={name}": ["miner.negatives"] for name in nesting}
    train = {"data=documents": ["data.max_train"]}
    without = {
        "loss.temperature": [f"loss={name}" for name in ("binary", "distill", "margin-mse", "mrl")],
        "loss.query_query": [f"loss={name}" for name in loader.choices("loss") if name != "infonce"],
        "loss.teacher": [f"loss={name}" for name in loader.choices("loss") if name != "distill"],
        "miner.miner": [f"miner={name}" for name in loader.choices("miner") if name not in ("hybrid", "scored")],
        "miner.relative_margin": [f"miner={name}" for name in ("blend", "blend-cross-encoder", "random")],
    }
    lacking = {key: {choice: [key] for choice in choices} for key, choices in without.items()}
    expected = {
        "code-search": few | train,
        "colbert": lacking["loss.temperature"],
        "distill": few,
        "first-look": length | train,
        "from-documents": lacking["miner.miner"] | lacking["loss.teacher"] | {"training=lists": ["training.batching"]},
        "labelled-pairs": lacking["miner.relative_margin"]
        | {choice: ["miner.negatives", "miner.relative_margin"] for choice in few},
        "large-batch": lacking["loss.query_query"] | {"model=cross-encoder": ["loss.query_query"]},
        "llm-embedder": {f"model={name}": ["model.max_length", "model.query_prompt"] for name in late}
        | {"model=cross-encoder": ["model.query_prompt"]},
        "mrl-funnel": {},
        "multilingual": length,
        "quickstart": train,
    }
    found: dict[str, dict[str, list[str]]] = {}
    groups = ("data", "evaluator", "generator", "loss", "miner", "model", "teacher", "training")
    choices = [f"{group}={choice}" for group in groups for choice in loader.choices(group)]
    for experiment in loader.choices("experiment"):
        every = {choice: left_out(loader, [f"experiment={experiment}", choice]) for choice in choices}
        found[experiment] = {choice: [one.key for one in keys] for choice, keys in every.items() if keys}
    assert found == expected


def test_an_experiment_of_ones_own(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mistakes remain errors; a later experiment replaces a choice as the command line does."""
    folder = house / "team" / "experiment" / "deep"
    folder.mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - override /loss: nested\nloss:\n  dims: [32]\n"
    (folder / "small.yaml").write_text(text)
    (folder / "wrong.yaml").write_text(text.replace("dims", "sizes"))
    (folder / "last.yaml").write_text("# @package _global_\ndefaults:\n  - override /loss: plain\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    loader = make_loader()
    assert values(loader, "experiment=deep/small")[1] == []
    assert values(loader, "experiment=deep/small", "loss=plain")[1] == ["~loss.dims"]
    assert values(loader, "experiment=[deep/small, deep/last]")[1] == ["~loss.dims"]
    for overrides in (["experiment=deep/wrong"], ["experiment=deep/wrong", "loss=plain"]):
        with pytest.raises(ConfigError, match="has no 'sizes'"):
            values(loader, *overrides)


def team_experiment(folder: Path, name: str, *lines: str) -> None:
    file = folder / "team" / "experiment" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["# @package _global_", *lines, ""]))


def test_an_experiment_that_builds_on_another(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of the experiment below are left out, whoever replaces its choice, as in the best job of a sweep."""
    team_experiment(house, "small", "defaults:", "  - override /loss: nested", "loss:", "  dims: [32]")
    team_experiment(house, "on_small", "defaults:", "  - small", "  - _self_", "model:", "  rate: 0.1")
    best = write_experiment(make_loader(), ["experiment=small", "loss=plain"], "The best.", house / "sweep")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", f"{house / 'team'}:{best.parents[1]}")
    loader = make_loader()
    assert values(loader, "experiment=on_small")[1] == []
    found, added = values(loader, "experiment=on_small", "loss=plain")
    assert (added, found["model"]["rate"], "dims" in found["loss"]) == (["~loss.dims"], 0.1, False)
    assert values(loader, "experiment=best")[1] == ["~loss.dims"]


def test_a_nested_choice(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("  - override /loss: nested", "loss:", "  dims: [32]", "  loss:", "    temperature: 0.1")
    team_experiment(house, "small", "defaults:", *lines)
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    loader = make_loader()
    assert left_out(loader, ["experiment=small", "loss@loss.loss=plain"]) == []
    [one] = left_out(loader, ["experiment=small", "loss@loss.loss=nested"])
    assert (one.key, one.overrides) == ("loss.loss.temperature", ("~loss.loss.temperature",))
    assert (one.own, one.chosen) == ("loss@loss.loss=plain", "loss@loss.loss=nested")


def test_a_group_without_a_choice(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the experiment's remains in the group, which is as it would be without the experiment."""
    team_experiment(house, "warm", "logger:", "  first:", "    temperature: 0.2", "loss:", "  temperature: 0.1")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    loader = make_loader()
    found, added = values(loader, "experiment=warm", "logger=null")
    assert "logger" not in found
    assert added == ["~logger", "~logger.first"]
    with pytest.raises(ConfigError, match=r"^loss: the task needs it; choose one: loss=\.\.\. \(command line\)$"):
        values(loader, "experiment=warm", "loss=null")


def test_a_mistyped_key_is_the_only_error(loader: Loader) -> None:
    told = r"^loss\.temprature: loss has no 'temprature'; did you mean 'temperature'\? \(command line\)$"
    with pytest.raises(ConfigError, match=told):
        values(loader, "experiment=from-documents", "loss=infonce", "loss.temprature=0.1")


def test_the_record_has_the_same_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["experiment=colbert", "loss=mrl", "run.dir=run"]  # else it has the time in it
    loader = make_loader()
    composed, origins = resolve_all(loader, overrides)
    assert "loss.temperature" not in origins
    again, _ = resolve_all(loader, [*overrides, "~loss.temperature"])
    assert json.dumps(again) == json.dumps(composed)


def test_the_choice_is_explained_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", "loss", "experiment=colbert", "loss=mrl"]) == 0
    assert "\nloss.temperature" not in capsys.readouterr().out
    assert main(["--cfg", "job", "--package", "loss", "experiment=colbert", "loss=mrl"]) == 0
    assert "\ntemperature" not in capsys.readouterr().out
