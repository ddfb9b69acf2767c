from embfit.compose.loader import make_loader
from embfit.compose.provenance import Origins, leaves, trace


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


def test_a_later_layer_replaces_what_is_below_and_above():
    origins = Origins()
    origins.put("a.b", "1")
    origins.put("a.c", "2")
    origins.put("a", "3")
    assert origins == {"a": "3"}
    origins.put("a.b", "4")
    assert origins == {"a.b": "4"}


def test_find_falls_back_to_what_is_around():
    origins = Origins({"a.list": "file:1", "b.c": "file:2"})
    assert origins.find("a.list[0].depth") == "file:1"
    assert origins.find("b") == "file:2"
    assert origins.find("b.missing") == ""
    assert origins.find("z") == ""


def test_leaves():
    assert dict(leaves({"a": {"b": 1, "c": {}}, "d": [{"e": 2}]})) == {"a.b": 1, "a.c": {}, "d": [{"e": 2}]}
