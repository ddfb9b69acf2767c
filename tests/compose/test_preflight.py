import pytest

from embfit.compose.composition import check_composed, compose
from embfit.compose.loader import make_loader
from embfit.compose.problems import Problem
from embfit.errors import ConfigError


def check_overrides(*overrides: str) -> None:
    loader = make_loader()
    check_composed(loader, compose(loader, overrides), overrides)


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        check_overrides(*overrides)
    lines = str(error.value).splitlines()
    return [line.strip() for line in lines[1:]] if len(lines) > 1 else lines


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("loss=nested", "loss.dims=[64,128]"),
        ("model.rate=1",),
        ("model=legal", "experiment=null"),
        ("task=fit", "trainer.devices=2"),
        ("~trainer.callbacks.early", "task=fit"),
        ("~trainer",),
    ],
)
def test_right_configurations_pass(house, overrides):
    check_overrides(*overrides)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("model.depth=abc", 'model.depth: expected a whole number of at least 1, got "abc" (command line)'),
        ("model.depth=-1", "model.depth: expected a whole number of at least 1, got -1 (command line)"),
        ("model.pooling=max", 'model.pooling: expected one of cls, mean, got "max" (command line)'),
        ("model.depth=101", "model: depth=101 exceeds 100; lower it (command line)"),
        ("+model.dpeth=1", "model.dpeth: acme.rooms.Model has no 'dpeth'; did you mean 'depth'? (command line)"),
        ("+modle.depth=1", "modle: no such group or key; did you mean 'model'? (command line)"),
        ("task.top=few", 'task.top: expected a whole number, got "few" (command line)'),
        ("run.dir=7", "run.dir: expected text, got 7; for text quote it: \"'7'\" (command line)"),
        ("model.path=???", "model.path: must be given: model.path=... (command line)"),
        (
            "trainer.callbacks.early.patience=x",
            'trainer.callbacks.early.patience: expected a whole number, got "x" (command line)',
        ),
        ("trainer.callbacks=5", "trainer.callbacks: expected a mapping of names to"),
        (
            "+trainer.precision=16",
            "trainer.precision: would be ignored, since embfit decides it; set training.precision",
        ),
        (
            "+trainer.enable_progress_bar=false",
            "trainer.enable_progress_bar: would be ignored, since embfit decides it;",
        ),
        ("model._target_=acme.rooms.Modle", "model._target_: acme.rooms has no 'Modle'; did you mean 'Model'?"),
        ("model._target_=os.getcwd", "model._target_: os.getcwd is code of posix; model may name embfit.model, or an"),
        ("+model._args_=[1]", "model._args_: acme.rooms.Model has no '_args_'"),
        ("~model", "model: the task needs it; choose one: model=... (command line)"),
        ("~loss.temperature", None),
        ("model=null", "model: the task needs it; choose one: model=..."),
        ("~task", "task: names no task; set task=finetune"),
        ("~task._target_", "task: sets nothing, since it has no _target_"),
    ],
)
def test_what_is_wrong(house, override, problem):
    if problem is None:
        check_overrides(override)
    else:
        assert problems(override)[0].startswith(problem)


def test_all_problems_at_once_each_with_its_place(house):
    assert problems("experiment=deep", "model.pooling=max", "model.rate=fast", "loss.temperature=hot") == [
        'model.pooling: expected one of cls, mean, got "max" (command line)',
        'model.rate: expected a number, got "fast" (command line)',
        'loss.temperature: expected a number, got "hot" (command line)',
    ]


def test_values_groups_and_objects_are_all_refused_at_once(house, monkeypatch):
    from embfit.compose import preflight

    def rule(values):
        if values["loss"]["temperature"] > 1:  # of a wrong type in what follows
            yield Problem("loss", "never said")

    monkeypatch.setattr(preflight, "RULES", (rule, lambda values: [Problem("store", "no")]))
    assert problems("loss.temperature=hot", "model.depth=101", "+task.tp=1") == [
        "task.tp: acme.rooms.count has no 'tp'; did you mean 'top'? (command line)",
        'loss.temperature: expected a number, got "hot" (command line)',
        "store: no (conf/config.yaml:23)",
        "model: depth=101 exceeds 100; lower it (command line)",
    ]


def test_a_command_line_that_does_not_compose_has_its_values_checked_too(house):
    assert problems("model=smal", "loss.temperature=hot", "model.depth=abc") == [
        "model=smal: no such choice; did you mean 'small'? (command line)",
        'loss.temperature: expected a number, got "hot" (command line)',
    ]
    assert problems("loss.tmperature=1", "model.depth=101") == [
        "loss.tmperature: loss has no 'tmperature'; did you mean 'temperature'? (command line)",
        "model: depth=101 exceeds 100; lower it (command line)",
    ]


def test_a_value_used_in_many_places_is_reported_where_it_stands(house):
    assert problems("seed=abc") == ['seed: expected a whole number of at least 0, got "abc" (command line)']


def test_what_is_wrong_with_a_group_is_placed_where_it_was_chosen(house, monkeypatch):
    from embfit.compose import preflight

    monkeypatch.setattr(preflight, "RULES", (lambda values: [Problem("model", "no"), Problem("loss", "no")],))
    assert problems("model=legal") == ["model: no (command line)", "loss: no (conf/config.yaml:7)"]
    assert problems("experiment=deep")[0] == "model: no (conf/experiment/deep.yaml:5)"


def test_what_an_object_refuses_is_placed_where_its_value_was_written(house, monkeypatch):
    file = house / "team" / "experiment" / "wrong.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\nmodel:\n  depth: 101\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    told = "model: depth=101 exceeds 100; lower it (team/experiment/wrong.yaml:3)"
    assert problems("experiment=wrong") == [told]


def test_a_nested_object_of_another_kind(house):
    problem = problems("loss=nested", "loss.loss={_target_: acme.rooms.Model}")[0]
    assert problem.startswith("loss.loss: expected a Loss, got a Model")


def test_what_a_task_does_not_use_may_lack_values(house):
    check_overrides("task=fit", "model.path=???")


def test_what_is_made_at_once_needs_all_that_has_no_default(house):
    assert problems("loss=nested", "~loss.loss") == [
        "loss.loss: acme.rooms.Nested needs it; set loss.loss=... (command line)"
    ]


def test_a_pack_may_name_its_own_code_only_when_installed(house, monkeypatch):
    from embfit.compose import preflight

    monkeypatch.setattr(preflight, "packs", frozenset)
    assert problems("model=small")[1].startswith(
        "model._target_: acme.rooms.Model is code of acme.rooms; model may name"
    )


@pytest.mark.parametrize("text", ["", "- a\n", "hello\n", "a: 1\n"])
def test_a_choice_that_makes_nothing(house, monkeypatch, text):
    file = house / "team" / "model" / "wrong.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    assert problems("model=wrong")[0].startswith("model: ")
