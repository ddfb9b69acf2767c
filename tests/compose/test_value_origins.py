import pytest

from embfit.compose.value_origins import Layer, Origins, leaves


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


def test_a_record_reads_as_what_was_written():
    origins = Origins()
    origins.put("seed", "conf/config.yaml:3", 0)
    origins.put("seed", "command line", 3)
    origins.put("model.seed", "conf/model/a.yaml:5", "${seed}")
    origins.choices["model"] = (Layer("command line", "a"), Layer("conf/config.yaml:2", None))
    record = origins.record({"seed": 3, "model": {"seed": 3}})
    assert record == {
        "choices": {
            "model": {
                "value": "a",
                "source": "command line",
                "overrode": [{"value": None, "source": "conf/config.yaml:2"}],
            }
        },
        "values": {
            "seed": {"value": 3, "source": "command line", "overrode": [{"value": 0, "source": "conf/config.yaml:3"}]},
            "model.seed": {"value": 3, "source": "conf/model/a.yaml:5", "written": "${seed}"},
        },
    }
    read = Origins.read(record)
    assert (read, read.layers, read.choices) == (origins, origins.layers, origins.choices)
    with pytest.raises(KeyError):
        Origins.read({"seed": "command line"})
