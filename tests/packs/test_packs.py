"""Two teams: A publishes a recipe as a pip package, B's package builds on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from embfit.app import main
from embfit.compose.composition import check_composed, compose, hydra_session
from embfit.compose.loader import make_loader
from embfit.compose.provenance import trace
from embfit.compose.value_origins import COMMAND_LINE, Layer
from embfit.style import Style
from embfit.style.template import find_template, read_template

HERE = Path(__file__).parent
PROJECTS = [HERE / "acme-legal", HERE / "globex-search"]
ACME = "acme-legal==2.1"
GLOBEX = "globex-search==0.3"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder into which pip has installed both packs."""
    pytest.importorskip("hatchling", reason="packs are built with hatchling")
    folder = tmp_path_factory.mktemp("site")
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *install, *map(str, PROJECTS)], check=True, timeout=120)
    return folder


@pytest.fixture
def installed(site, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("EMBFIT_CONFIG_PATH", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("acme_legal", "globex_search")]:
        del sys.modules[name]


def test_an_experiment_that_builds_on_another_teams(installed):
    overrides = ["experiment=globex-contracts", "data.path=DIR", "training.lr=1e-5"]
    loader = make_loader()
    config = compose(loader, overrides)
    check_composed(loader, config, overrides)
    assert config.loss._target_ == "acme_legal.losses.CautiousInfoNCE"
    assert config.miner._target_ == "embfit.miner.DenseMiner"
    origins = trace(loader, overrides)
    assert origins["loss.temperature"] == f"{ACME}:loss/acme-cautious.yaml:4"
    assert origins.layers["training.epochs"] == (
        Layer(f"{GLOBEX}:experiment/globex-contracts.yaml:11", 1),
        Layer(f"{ACME}:experiment/acme-recipe.yaml:10", 2),
        Layer("conf/training/in-batch.yaml:4", 3),
    )
    assert origins.layers["training.lr"][:2] == (
        Layer(COMMAND_LINE, 1e-5),
        Layer(f"{ACME}:experiment/acme-recipe.yaml:9", 2e-5),
    )
    assert origins.choices["loss"][0] == Layer(f"{ACME}:experiment/acme-recipe.yaml:5", "acme-cautious")
    assert origins.choices["miner"] == (
        Layer(f"{GLOBEX}:experiment/globex-contracts.yaml:7", "dense"),
        Layer("conf/config.yaml:7", "dense"),
    )


def test_another_teams_generator_brings_its_style(installed, site):
    overrides = ["generator=acme-clauses", "generator.url=http://127.0.0.1:9/v1", "generator.model=tiny"]
    loader = make_loader()
    with hydra_session(loader):
        found = check_composed(loader, compose(loader, overrides), overrides)
    assert found.origins["generator.temperature"] == f"{ACME}:generator/acme-clauses.yaml:8"
    styles = {name: Style(**settings) for name, settings in styles_of(found.values["generator"]).items()}
    assert styles["acme-clause"].label == "Clause"
    assert styles["question"].share == 0.5
    template = find_template(styles["acme-clause"].template)
    assert template == site / "acme_legal" / "conf" / "style" / "acme-clause.md"
    assert read_template("acme-clause.md").fill({"document": "D", "count": "3"}).startswith("Write 3 questions")


def styles_of(generator):
    return {
        name: {key: value for key, value in settings.items() if key != "_target_"}
        for name, settings in generator["styles"].items()
    }


def test_what_is_installed(installed, site, capsys):
    assert main(["pack", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{ACME}  {site / 'acme_legal' / 'conf'}",
        "  experiment=acme-recipe  Long clauses, on one GPU: what team A trains with.",
        "  generator=acme-clauses  Contracts: half of the queries ask about clauses.",
        "  loss=acme-cautious  Judgements with mistakes in them.",
        "  style=acme-clause  Questions about the clauses of a contract, as our lawyers ask them.",
        f"{GLOBEX}  {site / 'globex_search' / 'conf'}",
        "  experiment=globex-contracts  Team A's recipe on our contracts, with harder negatives.",
    ]


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_a_checkout_is_checked_in_the_place_of_the_installed_pack(installed, capsys, project):
    assert main(["pack", "check", str(project)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{project.name}==")


def test_a_pack_without_the_one_that_it_builds_on(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["pack", "check", str(PROJECTS[1])]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("wrong  experiment/globex-contracts.yaml: ")
    assert "'acme-recipe'" in out
    assert err == "embfit: error: globex-search==0.3: 1 of 1 choices do not pass\n"
