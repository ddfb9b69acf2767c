import subprocess
import sys
from pathlib import Path

import pytest

from embfit.app import main
from embfit.compose.packs import pack_at
from embfit.compose.search_path import added_sources, packs, trying
from embfit.errors import ConfigError


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv("EMBFIT_CONFIG_PATH", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)


def write(path: str, text: str) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_new_pack_passes_its_own_check(capsys):
    assert main(["pack", "new", "legal-search"]) == 0
    assert "choose it    python -m embfit experiment=legal-search" in capsys.readouterr().out
    assert main(["pack", "check", "legal-search"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok     experiment/legal-search.yaml",
        "ok     model/legal-search-minilm.yaml",
        "legal-search==0.1.0 passes; choices checked: 2",
    ]
    test = Path("legal-search/tests/test_choices.py")
    compile(test.read_text(), str(test), "exec")


@pytest.mark.slow
def test_the_test_of_a_new_pack():
    assert main(["pack", "new", "legal-search"]) == 0
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "legal-search"], check=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["new", "Legal"], "'Legal' cannot name a pack"),
        (["new", "json"], "a Python package json exists already"),
        (["new", "taken"], "taken exists already"),
        (["check", "nowhere"], "nowhere is neither a pack's project"),
        (["check", "empty"], "names no pack; add [project.entry-points"),
        (["check", "gone"], "names the package gone_pack.conf, and there is no such folder"),
        (["chekc"], "argument new|check|list: invalid choice: 'chekc'"),
        ([], "the following arguments are required: new|check|list; see embfit pack --help"),
    ],
)
def test_wrong_usage(capsys, arguments, told):
    Path("taken").mkdir()
    write("empty/pyproject.toml", "[project]\nname = 'empty'\n")
    entry = '[project.entry-points."embfit.configs"]\ngone = "gone_pack.conf"\n'
    write("gone/pyproject.toml", f"[project]\nname = 'gone'\n{entry}")
    assert main(["pack", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_every_wrong_choice_is_named(capsys):
    command = "# When.\n# python -m embfit"
    write("team/model/right.yaml", f"{command} model=right\ndefaults: [minilm]\n")
    write("team/model/typo.yaml", f"{command} model=typo\ndefaults: [minilm, _self_]\nmax_lenght: 3\n")
    write("team/data/other.yaml", f"{command} data=beir\ndefaults: [beir]\n")
    write("team/data/given.yaml", f"{command} data=given data.path=DIR   # a folder\ndefaults: [beir]\n")
    write("team/miner/mute.yaml", "defaults: [dense]\n")
    write("team/loss/quote.yaml", "# When.\n# python -m embfit loss=quote query='what\ndefaults: [infonce]\n")
    write("team/loss/option.yaml", "# When.\n# python -m embfit loss=option --bogus\ndefaults: [infonce]\n")
    write("team/loss/typo.yaml", f"{command} loss=typo\n_target_: embfit.loss.InfoNEC\n")
    write("team/miner/deep/down.yaml", f"{command} miner=deep/down\ndefaults: [dense]\n")
    assert main(["pack", "check", "team"]) == 2
    out, err = capsys.readouterr()
    told = [line.replace(str(Path.cwd()), ".") for line in out.splitlines()]
    assert told == [
        "ok     data/given.yaml",
        "wrong  data/other.yaml: ./team/data/other.yaml: its command does not choose it; write # python -m embfit "
        "data=other ...",
        "wrong  loss/option.yaml: ./team/loss/option.yaml:2: its command cannot be read: unrecognized arguments: "
        "--bogus; see python -m embfit --help",
        "wrong  loss/quote.yaml: ./team/loss/quote.yaml:2: its command cannot be read: No closing quotation",
        "wrong  loss/typo.yaml: loss._target_: embfit.loss has no 'InfoNEC'; did you mean 'InfoNCE'? "
        "(team/loss/typo.yaml:3)",
        "wrong  miner/deep/down.yaml: ./team/miner/deep/down.yaml must be GROUP/NAME.yaml; names are flat, such as "
        "model/legal-bge.yaml",
        "wrong  miner/mute.yaml: ./team/miner/mute.yaml:1: begin with a comment line on when to choose it; --help "
        "shows that line",
        "ok     model/right.yaml",
        "wrong  model/typo.yaml: model.max_lenght: embfit.model.Pretrained has no 'max_lenght'; did you mean "
        "'max_length'? (team/model/typo.yaml:4)",
    ]
    assert err == "embfit: error: team: 7 of 9 choices do not pass\n"


def test_a_pack_without_choices_does_not_pass(capsys):
    entry = '[project.entry-points."embfit.configs"]\nbare = "bare_pack.conf"\n'
    write("bare/pyproject.toml", f"[project]\nname = 'bare'\n{entry}")
    folder = Path("bare/bare_pack/conf")
    folder.mkdir(parents=True)
    assert main(["pack", "check", "bare"]) == 2
    assert f"{folder.absolute()} has no choices; add a file GROUP/NAME.yaml" in capsys.readouterr().err
    write("elsewhere/right.yaml", "# When.\n# python -m embfit model=right\ndefaults: [minilm]\n")
    (folder / "model").symlink_to(Path("elsewhere").absolute())
    assert main(["pack", "check", "bare"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "ok     model/right.yaml"


def test_a_pack_counts_as_installed_only_while_it_is_tried():
    main(["pack", "new", "legal-search"])
    pack = pack_at(Path("legal-search"))
    assert (pack.provider, pack.package) == ("legal-search==0.1.0", "legal_search")
    with trying(pack):
        assert pack in added_sources()
        assert "legal_search" in packs()
    assert pack not in added_sources()
    assert "legal_search" not in packs()


def test_no_packs(capsys):
    assert main(["pack", "list"]) == 0
    assert "embfit pack new NAME creates a pack" in capsys.readouterr().out


def test_a_project_that_is_no_project():
    write("broken/pyproject.toml", "[project\n")
    with pytest.raises(ConfigError, match="describes no package"):
        pack_at(Path("broken"))
