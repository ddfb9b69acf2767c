import pytest

from embfit.compose.build import bind_task, make
from embfit.compose.composition import compose, resolve, without_hydra
from embfit.compose.loader import make_loader
from embfit.errors import ConfigError
from embfit.run.folder import RunFolder


def bound(house, *overrides):
    values = resolve(without_hydra(compose(make_loader(), [*overrides, "run.dir=out"])), {})
    run = RunFolder(house / "out", values, {})
    return bind_task(values, {"run": lambda: run}), run


def test_a_task_gets_what_it_names(house):
    task, run = bound(house, "seed=3", "task.top=7", "model.depth=2", "query='it is'")
    assert set(task.keywords) == {"model", "loss", "run", "seed", "store", "query", "top"}
    assert (task.keywords["model"].depth, task.keywords["model"].seed) == (2, 3)
    assert (task.keywords["seed"], task.keywords["top"], task.keywords["query"]) == (3, 7, "it is")
    assert task.keywords["run"] is run
    assert task.keywords["store"].enabled
    assert not (house / "out").exists()


def test_lists_are_plain_lists(house):
    task, _ = bound(house, "loss=nested", "loss.dims=[64,128]")
    assert type(task.keywords["loss"].dims) is list
    assert type(task.keywords["loss"].loss).__name__ == "Loss"


def test_the_trainer_comes_with_loggers_and_callbacks(house, capsys):
    task, _ = bound(house, "task=fit", "trainer.devices=2")
    trainer = task.keywords["trainer"]
    assert trainer.keywords["devices"] == 2
    assert [callback.patience for callback in trainer.keywords["callbacks"]] == [2]
    assert [logger.temperature for logger in trainer.keywords["logger"]] == [1.0, 2.0]
    made = trainer(max_steps=3)
    assert type(made).__name__ == "Trainer"
    assert made.rest["max_steps"] == 3


def test_loggers_and_callbacks_may_be_left_out_by_name(house):
    task, _ = bound(house, "task=fit", "~trainer.callbacks.early", "~logger.first")
    assert task.keywords["trainer"].keywords["callbacks"] == []
    assert len(task.keywords["trainer"].keywords["logger"]) == 1
    task, _ = bound(house, "task=fit", "logger=null")
    assert task.keywords["trainer"].keywords["logger"] == []


def test_an_object_that_refuses_its_values_says_which(house):
    with pytest.raises(ConfigError, match=r"^model: depth=101 exceeds 100; lower it$"):
        make({"_target_": "acme.rooms.Model", "depth": 101}, "model")
    with pytest.raises(ConfigError, match=r"^loss\.loss: depth=101 exceeds"):
        make({"_target_": "acme.rooms.Nested", "loss": {"_target_": "acme.rooms.Model", "depth": 101}}, "loss")


def test_a_bug_in_a_constructor_stays_what_it_is(house):
    with pytest.raises(TypeError, match="unexpected keyword argument 'nowhere'"):
        make({"_target_": "acme.rooms.Model", "nowhere": 101}, "model")


def test_a_resolved_value_is_taken_as_it_is():
    text = "Template ${domain}: \\${x}"
    assert make({"_target_": "builtins.dict", "prompt": text, "more": [{"text": text}]}, "model") == {
        "prompt": text,
        "more": [{"text": text}],
    }
