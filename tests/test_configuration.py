"""Holds embfit's own YAMLs to the code that they name and to the guides that describe them."""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from embfit.compose.build import GIVEN
from embfit.compose.composition import check_composed, compose
from embfit.compose.group_packages import NOT_THE_TRAINERS, lives_in, owned_elsewhere, packages_of
from embfit.compose.help import purpose
from embfit.compose.loader import Loader, make_loader
from embfit.compose.preflight import AGAIN
from embfit.compose.renamed_keys import RENAMED
from embfit.compose.targets import Target, find_target
from embfit.compose.values import complaint
from embfit.errors import ConfigError
from embfit.run.folder import RunFolder

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
CHOICES = [file for file in FILES if file.parent != CONF]
PAGES = {"index": "search-index", "server": "serve"}  # guides with another name: `index` is that of a site's first page
GROUPS = sorted({file.parent.name for file in CHOICES})


def name(file: Path) -> str:
    return str(file.relative_to(CONF).with_suffix(""))


def text(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


@cache
def whole(file: Path) -> dict[str, Any]:
    """A file together with those of its own group that it is built on."""
    built_on = [entry for entry in listed(file) if isinstance(entry, str) and (file.parent / f"{entry}.yaml").is_file()]
    parts = [*(whole(file.parent / f"{entry}.yaml") for entry in built_on), text(file)]
    merged: dict[str, Any] = OmegaConf.to_container(OmegaConf.merge(*parts), resolve=False)  # type: ignore[assignment]
    return merged


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield value
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


def targets(file: Path) -> Iterator[tuple[dict[str, Any], Target]]:
    for node in nodes(whole(file)):
        yield node, find_target(node["_target_"])


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory):
    """Nothing of the user's own is composed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EMBFIT_CONFIG_PATH", raising=False)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def loader(alone) -> Loader:
    return make_loader()


@pytest.fixture(scope="module")
def composed(loader) -> Callable[[Path], tuple[DictConfig, list[str]]]:
    """Compose a choice with what it needs, once; return that and the overrides that it was composed with."""

    @cache
    def compose_choice(file: Path) -> tuple[DictConfig, list[str]]:
        overrides = [*chosen(file), *needed(file)]
        return compose(loader, overrides), overrides

    return compose_choice


@pytest.mark.parametrize("file", FILES, ids=name)
def test_each_file_begins_with_when_to_choose_it_and_how(file):
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    assert purpose(file) == lines[0][2:]
    assert lines[1].startswith("# python -m embfit")
    assert not lines[2].startswith("#")


@pytest.mark.parametrize("file", CHOICES, ids=name)
def test_names_are_kebab_case(file):
    assert re.fullmatch(r"[a-z0-9]+([-.][a-z0-9]+)*", file.stem)


@pytest.mark.parametrize("file", CHOICES, ids=name)
def test_targets_live_in_their_groups_package(file):
    for _, target in targets(file):
        assert lives_in(target.module, packages_of(file.parent.name)), target.module


@pytest.mark.parametrize("file", FILES, ids=name)
def test_each_file_lists_every_parameter_with_the_codes_own_default(file):
    known = {*GROUPS, *AGAIN, *GIVEN, "store", *text(CONF / "config.yaml")} if file.parent.name == "task" else set()
    defaults = {re.split(r"[@ ]", entry if isinstance(entry, str) else next(iter(entry)))[-1] for entry in listed(file)}
    for node, target in targets(file):
        if not target.module.startswith("embfit."):
            continue
        written = {key: value for key, value in node.items() if not key.startswith("_") and key != "defaults"}
        assert set(written) <= set(target.parameters)
        assert set(target.parameters) - set(written) - known <= defaults
        for key, value in written.items():
            default = target.parameters[key].default
            if file.stem in one_of_many(file.parent) or default is inspect.Parameter.empty:
                continue  # a choice is its values
            if isinstance(value, str) and value.startswith("${"):
                assert key == "path" or value == f"${{{key}}}"  # a path may be taken from a knob of another name
                continue
            if next(nodes(value), None):
                continue  # held to its own code, node by node
            assert value == (list(default) if isinstance(default, tuple) else default), key


def chosen(file: Path) -> list[str]:
    """What chooses a file; styles are chosen inside a generator alone."""
    if file.parent.name == "style":
        return ["generator=api", f"+style@generator.styles.mine={file.stem}"]
    return [f"{file.parent.name}={file.stem}"]


def listed(file: Path) -> list[Any]:
    """The defaults list of a file: what it lists there it lists."""
    return text(file).get("defaults") or []


@cache
def one_of_many(group: Path) -> set[str]:
    """Choices of a group that share one class: they are made of their values."""
    classes: dict[str, list[str]] = {}
    for other in group.glob("*.yaml"):
        classes.setdefault(str(whole(other).get("_target_")), []).append(other.stem)
    return {stem for stems in classes.values() if len(stems) > 1 for stem in stems}


@pytest.mark.parametrize("file", [file for file in CHOICES if file.parent.name != "task"], ids=name)
def test_every_type_hint_can_be_held_to(file):
    for _, target in targets(file):
        if target.module.startswith("embfit."):
            for key, hint in target.hints.items():
                assert hint is not Any, key
                assert complaint(object, hint) is not None, key  # what no hint allows


def test_the_default_configuration_passes(loader):
    check_composed(loader, compose(loader, []), [])


@pytest.mark.parametrize("key", ["seed", "training.seed", "miner.seed", "data.split_seed", "model.lora.seed"])
def test_no_seed_is_below_0(loader, key):
    overrides = [f"{key}=-1"]
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}: expected a whole number of at least 0, got -1"):
        check_composed(loader, compose(loader, overrides), overrides)


NEEDS = {
    "data/beir": "path",
    "data/clicks": "path",
    "data/documents": "path",
    "data/pairs": "path",
    "data/hub": "name",
    "model/custom": "path",
    "miner/file": "path",
    "miner/cross-encoder": "model",
    "miner/scored": "model",
    "miner/blend-cross-encoder": "miner.sources.cross-encoder.model",
    "index/milvus": "url",
    "index/pgvector": "host",
    "task/bridge": "bundle.name",
    "task/index": "bundle.name",
    "task/refresh": "bundle.name",
    "task/serve": "bundle.name",
    "experiment/distill": "miner.model",
    "generator/local": "model",
    "generator/trained": "model",
    "experiment/from-documents": "data.path",
    "experiment/labelled-pairs": "data.path",
}


def needed(file: Path) -> Iterator[str]:
    """Yield the overrides without which a choice is not whole."""
    yield 'query="what"'
    if name(file) in ("loss/listwise", "loss/binary", "training/lists"):
        yield "model=cross-encoder"  # which alone they train
    if name(file) == "teacher/cross-encoder":
        yield "loss=distill"  # which reads its scores
    if name(file) == "task/generate":
        yield "generator=extractive"
    if name(file) == "generator/api" or file.parent.name == "style":
        yield from ("generator.url=http://localhost/v1", "generator.model=somewhere")
    if key := NEEDS.get(name(file)):
        yield f"{key if '.' in key else f'{file.parent.name}.{key}'}=somewhere"


@pytest.mark.parametrize("file", CHOICES, ids=name)
def test_every_choice_passes(file, loader, composed):
    check_composed(loader, *composed(file))


def test_knobs_that_errors_name_exist(loader):
    config = compose(loader, [])
    for knob in filter(None, NOT_THE_TRAINERS.values()):
        group, _, key = knob.partition(".")
        assert key in config[group] if key else group.split("=")[0] in config
    for file in (CONF / "trainer").glob("*.yaml"):
        assert not set(text(file)) & set(NOT_THE_TRAINERS)


def test_groups_have_a_package():
    for group in GROUPS:
        assert group in ("experiment", "trainer", "logger") or (ROOT / "embfit" / group).is_dir()


@pytest.mark.parametrize("group", GROUPS)
def test_the_guide_of_a_group_names_each_of_its_choices(group):
    page = ROOT / "docs" / f"{PAGES.get(group, group)}.md"
    told = page.read_text(encoding="utf-8")
    missing = [
        file.stem for file in (CONF / group).glob("*.yaml") if not re.search(rf"[`=]{re.escape(file.stem)}[`\s]", told)
    ]
    assert missing == []
    named = (
        set(re.findall(rf"\b{group}=([a-z0-9-]+(?:\.[a-z0-9-]+)*)", told)) if group != "experiment" else set()
    )  # its page writes one
    assert named <= {file.stem for file in (CONF / group).glob("*.yaml")} | {"null"}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_keys_that_a_guide_names_exist(page, known_keys):
    told = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"`((?:{'|'.join(GROUPS)}|store|run)\.[a-z_.]+[a-z_])(?:=[^`]*)?`", told))
    assert {key for key in named - known_keys if not owned_elsewhere(key)} == set()


@pytest.fixture(scope="module")
def known_keys(composed) -> set[str]:
    """The keys of every choice, from the top of the configuration down."""
    return {key for file in CHOICES for key in keys(OmegaConf.to_container(composed(file)[0]))}


def keys(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{prefix}{key}"
            yield from keys(item, f"{prefix}{key}.")


def test_a_run_folder_is_what_tasks_think_it_is():
    attributes = {"dir", "config", "origins", "command", "resuming", "timings", "stage"}
    run = RunFolder(Path("x"), {}, {})
    assert all(hasattr(run, attribute) for attribute in attributes)


def test_slurm_says_how_many_ranks_there_are(loader, monkeypatch):
    monkeypatch.setenv("SLURM_NNODES", "2")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    trainer = OmegaConf.to_container(compose(loader, ["trainer=slurm"]), resolve=False)["trainer"]
    node = OmegaConf.create({"trainer": trainer})
    assert (node.trainer.devices, node.trainer.num_nodes, node.trainer.strategy) == (4, 2, "ddp")
    monkeypatch.delenv("SLURM_NNODES")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    assert (node.trainer.devices, node.trainer.num_nodes) == ("auto", 1)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("miner=taught", "miner=taught: is now miner=scored (command line)"),
        ("sweep.at_once=2", "sweep.at_once: is now sweep.max_parallel (command line)"),
        (
            "task.sytems=[base]",
            "task.sytems: task has no 'sytems'; task.systems is a key of task=assess and task=evaluate, and "
            "task=finetune is chosen (command line)",
        ),
    ],
)
def test_names_of_before_and_of_elsewhere_are_known(loader, override, told):
    with pytest.raises(ConfigError) as error:
        compose(loader, [override])
    assert str(error.value) == told


def test_new_names_exist(loader):
    for new in RENAMED.values():
        group, _, choice = new.partition("=")
        assert (
            choice in loader.choices(group) if choice else new.split(".")[1] in find_target("embfit.sweep.Optuna").hints
        )
