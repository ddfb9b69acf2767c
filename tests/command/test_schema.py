import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from embfit.app import main
from embfit.compose.loader import make_loader
from embfit.compose.schema import schemas, sound_choices

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EMBFIT_CONFIG_PATH", raising=False)
        choices, problems = sound_choices()
        assert problems == []
        return schemas(make_loader(), choices)


def errors(schema, text: str) -> list[str]:
    return [error.message for error in Draft7Validator(schema).iter_errors(yaml.safe_load(text))]


@pytest.mark.parametrize("file", sorted(CONF.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_embfits_own_files_pass(found, file):
    schema = found[file.parent.name]
    Draft7Validator.check_schema(schema)
    assert errors(schema, file.read_text(encoding="utf-8")) == []


def test_mistakes_are_marked(found):
    loss = found["loss"]
    assert errors(loss, "_target_: embfit.loss.InfoNCE\ntemperature: ${seed}") == []
    [message] = errors(loss, "_target_: embfit.loss.InfoNCE\ntemprature: 1")
    assert "'temprature' was unexpected" in message
    assert len(errors(loss, "_target_: embfit.loss.InfoNCE\nsymmetric: 3")) > 0
    [message] = errors(loss, "defaults: [infonce, _self_]\ntemprature: 1")
    assert "'temprature' was unexpected" in message
    [message] = errors(found["experiment"], "modle: {path: x}")
    assert "'modle' was unexpected" in message


def test_keys_come_with_defaults_and_the_words_of_the_yaml(found):
    symmetric = found["loss"]["properties"]["symmetric"]
    assert symmetric["default"] is False
    assert symmetric["description"] == "true also classifies each document's query"
    ways = found["loss"]["properties"]["temperature"]["anyOf"]  # several losses have one, each its own
    assert {way["default"] for way in ways} == {0.05, 1.0}
    assert "max_epochs" not in found["trainer"]["properties"]


def test_nested_choices_have_the_keys_of_their_group(found):
    assert errors(found["loss"], "defaults: [mrl, _self_]\nloss: {temperature: 0.02}") == []
    for group, text in {
        "loss": "defaults: [mrl, _self_]\nloss: {symmetric: 3}",
        "miner": "defaults: [dense, _self_]\nencoder: {max_length: many}",
        "model": "defaults: [bge-base, _self_]\nlora: {_target_: embfit.model.LoRA, rnak: 8}",
        "logger": "mlflow: {_target_: embfit.logger.MLflow, experiment: 3}",
        "experiment": "loss: {loss: {symmetric: 3}}",
    }.items():
        assert errors(found[group], text) != [], text
    choice = found["loss"]["properties"]["loss"]["anyOf"][0]
    assert choice["properties"]["symmetric"]["default"] is False


def test_files_and_editor_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    team = tmp_path / "team"
    team.mkdir()
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(team))
    assert main(["schema", "--dir", "schemas"]) == 0
    told = json.loads(capsys.readouterr().out)["yaml.schemas"]
    assert told["schemas/loss.json"] == ["**/conf/loss/*.yaml", f"{team}/loss/*.yaml"]
    assert json.loads(Path("schemas/loss.json").read_text())["title"] == "embfit: loss"


def test_a_broken_file_is_named_and_the_others_have_their_schema(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    loss = tmp_path / "team" / "loss"
    loss.mkdir(parents=True)
    (loss / "typo.yaml").write_text("_target_: embfit.loss.InfoNEC\n")
    (loss / "open.yaml").write_text("temperature: 1\ndims: [1,\n")
    (loss / "right.yaml").write_text("_target_: collections.Counter\n")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(tmp_path / "team"))
    assert main(["schema", "--dir", "schemas"]) == 2
    out, err = capsys.readouterr()
    assert "schemas/loss.json" in json.loads(out)["yaml.schemas"]
    _, broken, typo = err.splitlines()
    assert broken.startswith(f"  {loss / 'open.yaml'}:3: ")
    assert typo.startswith(f"  {loss / 'typo.yaml'}: embfit.loss has no 'InfoNEC'; did you mean 'InfoNCE'?")
    targets = json.loads(Path("schemas/loss.json").read_text())["properties"]["_target_"]["examples"]
    assert {"embfit.loss.InfoNCE", "collections.Counter"} <= set(targets)
    assert "embfit.loss.InfoNEC" not in targets
