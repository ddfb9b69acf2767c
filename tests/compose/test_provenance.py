from embfit.compose.loader import make_loader
from embfit.compose.provenance import trace
from embfit.compose.value_origins import Layer


def test_every_leaf_has_the_file_and_line_that_gave_it(house):
    origins = trace(make_loader(), ["loss=nested", "experiment=deep", "model.rate=0.1", "+loss.extra={a: 1}"])
    assert origins["seed"] == "conf/config.yaml:14"
    assert origins["run.dir"] == "conf/config.yaml:20"
    assert origins["store.dir"] == "conf/config.yaml:24"
    assert origins["model.path"] == "acme-pack==1.2:model/legal.yaml:4"
    assert origins["model.depth"] == "conf/experiment/deep.yaml:8"
    assert origins["model.rate"] == "command line"
    assert origins["loss.loss.temperature"] == "conf/loss/plain.yaml:4"
    assert origins["loss.dims"] == "conf/loss/nested.yaml:8"
    assert origins["loss.extra.a"] == "command line"
    assert origins["trainer.callbacks.early.patience"] == "conf/trainer/auto.yaml:9"
    assert not any(key.startswith(("hydra", "defaults", "loss.defaults")) for key in origins)


def test_what_is_removed_has_no_origin(house):
    origins = trace(make_loader(), ["~trainer.callbacks.early", "experiment=null"])
    assert not any(key.startswith("trainer.callbacks") for key in origins)


def test_files_of_a_named_folder_are_shown_by_path(house, monkeypatch):
    file = house / "team" / "model" / "ours.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("_target_: acme.rooms.Model\nbase: &base\n  depth: 7\n<<: *base\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "team"))
    origins = trace(make_loader(), ["model=ours"])
    assert origins["model._target_"] == "team/model/ours.yaml:1"
    assert origins["model.depth"] == "team/model/ours.yaml:3"


def test_what_a_value_overrode_latest_first(house):
    origins = trace(make_loader(), ["experiment=deep", "model.depth=5", "model.path='a b'"])
    assert origins.layers["model.depth"] == (
        Layer("command line", 5),
        Layer("conf/experiment/deep.yaml:8", 9),
        Layer("acme-pack==1.2:model/legal.yaml:5", 4),
    )
    assert origins.layers["model.path"][0] == Layer("command line", "a b")
    assert origins.layers["model.seed"] == (Layer("acme-pack==1.2:model/legal.yaml:8", "${seed}"),)


def test_who_chose_for_each_group(house):
    choices = trace(make_loader(), ["experiment=deep", "loss=nested", "logger=null"]).choices
    assert choices["model"] == (Layer("conf/experiment/deep.yaml:5", "legal"), Layer("conf/config.yaml:6", "small"))
    assert choices["loss"] == (Layer("command line", "nested"), Layer("conf/config.yaml:7", "plain"))
    assert choices["loss@loss.loss"] == (Layer("conf/loss/nested.yaml:4", "plain"),)
    assert choices["task"] == (Layer("conf/config.yaml:5", "count"),)
    assert choices["logger"][0] == Layer("command line", None)
    assert not any(group.startswith("hydra") for group in choices)
