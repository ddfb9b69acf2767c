import re
import shlex

import pytest
from omegaconf import OmegaConf

from embfit.compose.composition import check_composed, compose, resolve
from embfit.compose.loader import make_loader
from embfit.errors import ConfigError


def test_groups_and_choices(house):
    loader = make_loader()
    assert loader.groups() == ["experiment", "launcher", "logger", "loss", "model", "sweep", "task", "trainer"]
    assert loader.choices("loss") == ["nested", "plain"]


def test_an_experiment_overrides_groups_and_keys_and_null_leaves_it_out(house):
    loader = make_loader()
    assert compose(loader, ["experiment=deep"]).model.depth == 9
    assert compose(loader, ["experiment=deep", "model.depth=2"]).model.depth == 2
    assert compose(loader, ["experiment=null"]).model.depth == 3


def test_nested_choices_can_be_chosen(house):
    loader = make_loader()
    assert compose(loader, ["loss=nested", "loss@loss.loss=plain"]).loss.loss.temperature == 0.05
    with pytest.raises(ConfigError, match=r"loss@loss\.loss=plan: no such choice; did you mean 'plain'"):
        compose(loader, ["loss=nested", "loss@loss.loss=plan"])


def test_a_choice_may_hang_on_another(house, monkeypatch):
    """A file names the group on which its own choice hangs; a group that there is not is told with those that are."""
    team = house / "team" / "model"
    team.mkdir(parents=True)
    (team / "alike.yaml").write_text("defaults:\n- /loss@inner: ${loss}\n- small\n")
    (team / "lost.yaml").write_text("defaults:\n- /loss@inner: ${los}\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    config = compose(make_loader(), ["loss=nested", "model=alike"]).model
    assert (config.inner._target_, config.depth) == ("acme.rooms.Nested", 3)
    assert compose(make_loader(), ["model=alike"]).model.inner._target_ == "acme.rooms.Loss"
    with pytest.raises(ConfigError, match=r"interpolation '\$\{los\}', possible interpolation keys: .*\bloss\b"):
        compose(make_loader(), ["model=lost"])


def test_nested_choices_have_their_own_keys(house):
    config = compose(make_loader(), ["loss=nested", "loss.loss.temperature=0.02"])
    assert OmegaConf.to_container(config.loss) == {
        "_target_": "acme.rooms.Nested",
        "dims": None,
        "loss": {"_target_": "acme.rooms.Loss", "temperature": 0.02},
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=legl", "model=legl: no such choice; did you mean 'legal'? (command line)"),
        ("model=zzz", "model=zzz: no such choice; it is one of legal, small (command line)"),
        ("modle=legal", "modle: no such group or key; did you mean 'model'? (command line)"),
        ("sede=1", "sede: no such group or key; did you mean 'seed'? (command line)"),
        ("model.dpeth=1", "model.dpeth: model has no 'dpeth'; did you mean 'depth'? (command line)"),
        ("loss.loss.temperature=1", "loss.loss.temperature: loss has no 'loss'; it is one of temperature"),
        ("model.depth.x=1", "model.depth.x: model.depth has no 'x' (command line)"),
        ("+model.depth=1", "model.depth: is there already; leave out the + (command line)"),
        ("~model.dpeth", "model.dpeth: model has no 'dpeth'; did you mean 'depth'? (command line)"),
        ("modle@x=legal", "modle: no such group; did you mean 'model'? (command line)"),
        ("model@x=legal", "model@x=legal: no model is chosen at x; write model=legal (command line)"),
        (
            "loss@loss.loss=plain",
            "loss@loss.loss=plain: no loss is chosen at loss.loss; add loss=nested (command line)",
        ),
        ("model=[small,legal]", "model=[small,legal]: model takes one choice; -m model=small,legal runs one job for"),
        ("~seed", "~seed: cannot be left out; set seed=VALUE (command line)"),
        ("~seed=0", "~seed: cannot be left out; set seed=VALUE (command line)"),
        ("~run.dir", "~run.dir: cannot be left out; set run.dir=VALUE (command line)"),
        ("~store", "~store: cannot be left out; set what is below it, store.KEY=VALUE (command line)"),
        ("=3", "=3: has no key; expected KEY=VALUE (command line)"),
        ("+=3", "+=3: has no key; expected KEY=VALUE (command line)"),
        ("~", "~: expected KEY=VALUE (command line)"),
        ("", "'': expected KEY=VALUE (command line)"),
        ("trainer.max_epochs=3", "trainer.max_epochs: would be ignored, since embfit decides it; set training.epochs"),
        (
            "trainer.limit_train_batches=9",
            "trainer.limit_train_batches: would be ignored, since embfit decides it; set training.steps",
        ),
        ("trainer.callbacks=[]", "trainer.callbacks: expected a mapping of names, got a list (command line)"),
        ("model.depth", "model.depth: expected KEY=VALUE (command line)"),
        ("doctr", "doctr: expected KEY=VALUE; did you mean the command 'doctor', as the first word? (command line)"),
        ("scor", "scor: expected KEY=VALUE; did you mean the task 'score', as the first word? (command line)"),
        ("model.path=a(1)", "model.path: cannot read the value a(1); quote it: model.path='\"a(1)\"' (command line)"),
        ("seed=1,2", "seed=1,2: several values need -m, which runs one job for each; write a list as [a,b]"),
        ("model=small,legal", "model=small,legal: several values need -m"),
        ("launcher.jobs=2", "launcher.jobs: nothing is chosen for launcher; add launcher="),
        ("experiment.x=1", "experiment.x: nothing is chosen for experiment; add experiment=deep (command line)"),
    ],
)
def test_what_is_wrong_on_the_command_line(house, override, message):
    with pytest.raises(ConfigError) as error:
        compose(make_loader(), [override])
    assert str(error.value).startswith(message)


def test_what_is_quoted_as_told_is_read(house):
    with pytest.raises(ConfigError) as error:
        compose(make_loader(), ["model.path=it's"])
    told = re.search(r"quote it: (.*) \(command line\)", str(error.value))
    assert compose(make_loader(), shlex.split(told[1])).model.path == "it's"


def test_every_mistake_of_a_command_line_at_once(house):
    with pytest.raises(ConfigError) as error:
        compose(make_loader(), ["model=legl", "loss=[plain,nested]", "task.tpo=1", "sede=3", "~run"])
    assert str(error.value).splitlines() == [
        "5 problems in the configuration:",
        "  model=legl: no such choice; did you mean 'legal'? (command line)",
        "  loss=[plain,nested]: loss takes one choice; -m loss=plain,nested runs one job for each (command line)",
        "  task.tpo: task has no 'tpo'; did you mean 'top'? (command line)",
        "  sede: no such group or key; did you mean 'seed'? (command line)",
        "  ~run: cannot be left out; set what is below it, run.KEY=VALUE (command line)",
    ]


def test_keys_of_a_nested_choice_are_known_with_it(house):
    with pytest.raises(ConfigError, match=r"loss\.loss\.dismay: loss\.loss has no 'dismay'; did you mean 'dims'"):
        compose(make_loader(), ["loss=nested", "loss@loss.loss=nested", "loss.loss.dismay=[1]"])


def test_choices_that_go_together(house):
    config = compose(make_loader(), ["logger=[two]", "experiment=[deep]"])
    assert (sorted(config.logger), config.model.depth) == (["first", "second"], 9)


def test_a_file_that_merges_choices(house, monkeypatch):
    file = house / "team" / "experiment" / "both.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\ndefaults:\n  - override /model: [small, legal]\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    with pytest.raises(ConfigError) as error:
        compose(make_loader(), ["experiment=both"])
    assert str(error.value).startswith("model=[small,legal]: model takes one choice; ")
    assert str(error.value).endswith(f"({file}:3)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults:\n  - override /model: legl\n", "{file}:3: there is no 'legl' in the group model; did you mean"),
        ("defaults:\n  - override /modle: legal\n", "{file}:3: there is no group 'modle'; did you mean 'model'?"),
        (
            "defaults:\n  - model: legal\n",
            "{file}:3: 'model: legal' does not choose for another group; write - override /",
        ),
        ("defaults:\n  - /model: legal\n", "{file}:3: '/model: legal' does not choose for another group; write - over"),
        ("defaults:\n  - override model: legal\n", "{file}:3: 'model: legal' does not choose for another group; write"),
        ("defaults: [deeep, _self_]\n", "{file}:2: there is no 'deeep' in the group experiment; did you mean 'deep'?"),
        ("defaults: [/model/legl]\n", "{file}:2: there is no '/model/legl' in the group experiment"),
        ("defaults:\n- deep\n- override /loss@loss.x: plain\n", "In 'experiment/wrong': Could not override 'loss@loss"),
        ("model:\n  depth: 3\n  depth: 4\n", "{file}:4: found duplicate key depth"),
        ("model: [\n", "{file}:3: expected the node content"),
        ("defaults: legal\n", "{file}: Invalid defaults list in 'experiment/wrong', defaults must be a list"),
        ("seed: ${oops\n", "{file}: no viable alternative at input '${oops'"),
    ],
)
def test_what_is_wrong_in_a_file(house, monkeypatch, text, message):
    file = house / "team" / "experiment" / "wrong.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\n{text}")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    with pytest.raises(ConfigError) as error:
        compose(make_loader(), ["experiment=wrong"])
    assert str(error.value).startswith(message.replace("{file}", str(file)))
    assert "\n" not in str(error.value)


def test_what_is_wrong_in_a_file_that_another_one_builds_on(house, monkeypatch):
    for name, text in {
        "experiment/outer": "defaults: [inner]\n",
        "experiment/inner": "defaults: [deep, lost]\n",
    }.items():
        file = house / "team" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# @package _global_\n{text}")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    with pytest.raises(ConfigError, match=r"inner\.yaml:2: there is no 'lost' in the group experiment; it is one of"):
        compose(make_loader(), ["experiment=outer"])


def test_an_experiment_has_no_keys_of_its_own(house):
    with pytest.raises(ConfigError, match="experiment=deep has no keys of its own; it sets those of other groups"):
        compose(make_loader(), ["experiment=deep", "experiment.x=1"])


def test_a_misspelt_folder_of_choices(house, monkeypatch):
    file = house / "team" / "modle" / "ours.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("depth: 3\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    told = r"modle: is not a group of embfit's; .* \+modle=NAME; did you mean 'model'\?"
    with pytest.raises(ConfigError, match=told):
        compose(make_loader(), ["modle=ours"])
    assert compose(make_loader(), ["+modle=ours"]).modle.depth == 3


def test_a_file_with_a_key_that_no_code_knows_is_named_with_its_line(house, monkeypatch):
    file = house / "team" / "experiment" / "wrong.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\nmodel:\n  dpeth: 3\nmodle:\n  depth: 4\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    loader = make_loader()
    with pytest.raises(ConfigError) as error:
        check_composed(loader, compose(loader, ["experiment=wrong"]), ["experiment=wrong"])
    assert str(error.value).splitlines()[1:] == [
        "  modle: no such group or key; did you mean 'model'? (team/experiment/wrong.yaml:5)",
        "  model.dpeth: acme.rooms.Model has no 'dpeth'; did you mean 'depth'? (team/experiment/wrong.yaml:3)",
    ]


def test_an_experiment_without_its_header_is_not_passed_over_in_silence(house, monkeypatch):
    file = house / "team" / "experiment" / "wrong.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("model:\n  depth: 3\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    loader = make_loader()
    with pytest.raises(ConfigError, match=r"experiment: sets nothing, .* begins with: # @package _global_"):
        check_composed(loader, compose(loader, ["experiment=wrong"]), ["experiment=wrong"])


def test_interpolations_that_lead_nowhere_are_all_named():
    config = OmegaConf.create({"a": {"b": "${nowhere}", "c": 1}, "d": "${oc.env:NOT_SET_ANYWHERE}", "e": "???"})
    with pytest.raises(ConfigError) as error:
        resolve(config, {"a.b": "file.yaml:3"})
    assert str(error.value).splitlines() == [
        "2 problems in the configuration:",
        "  a.b: Interpolation key 'nowhere' not found (file.yaml:3)",
        "  d: Environment variable 'NOT_SET_ANYWHERE' not found",
    ]


def test_what_must_still_be_given_is_no_error_to_resolve():
    assert resolve(OmegaConf.create({"a": 1, "b": "${a}", "c": "???"}), {}) == {"a": 1, "b": 1, "c": "???"}
