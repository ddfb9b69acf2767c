from pathlib import Path

import pytest

from embfit.compose.rules import RULES, addresses_can_be, locations_are_there

INFONCE = {"_target_": "embfit.loss.InfoNCE"}
DENSE = {"_target_": "embfit.evaluator.systems.DenseSystem"}
FINETUNE = {"_target_": "embfit.task.finetune.finetune"}
REFRESH = {"_target_": "embfit.task.refresh.refresh"}
EXTRACTIVE = {"_target_": "embfit.generator.ExtractiveGenerator"}
DISTILL = {"_target_": "embfit.loss.Distillation", "teacher": {"_target_": "embfit.loss.KL"}}
RANKER = {"_target_": "embfit.teacher.CrossEncoderTeacher"}
NO_MINER = {"_target_": "embfit.miner.NoNegatives"}
HYBRID = {"_target_": "embfit.miner.HybridMiner", "miner": {"_target_": "embfit.miner.DenseMiner"}}
ADAPTED = {"guide": None, "remine_every": None, "steps": None, "dropout": False, "batching": "by_document"}


def found(**values):
    return [(problem.key, problem.message) for rule in RULES for problem in rule(values)]


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({}, []),
        ({"miner": {"negatives": 4, "depth": 4}}, []),
        ({"miner": {"negatives": 4}}, []),
        (
            {"miner": {"negatives": 4, "depth": 10, "skip": 7}},
            [
                (
                    "miner.negatives",
                    "4 exceeds the 3 ranks up to miner.depth=10 that are looked at; lower it or raise miner.depth",
                )
            ],
        ),
        (
            {"miner": {"negatives": 200, "sources": {"dense": {"negatives": 200, "depth": 100}, "bm25": {}}}},
            [
                (
                    "miner.sources.dense.negatives",
                    "200 exceeds the 100 ranks up to miner.sources.dense.depth=100 that are looked at; lower it or "
                    "raise miner.sources.dense.depth",
                )
            ],
        ),
        (
            {
                "miner": {"sources": {"a": {"unreached": "drop"}, "b": {"candidates": {"unreached": "drop"}}}},
                "training": {"remine_every": 1},
            },
            [
                (
                    "miner.sources.a.unreached",
                    "drop cannot go with training.remine_every, which mines for the same queries each time; set "
                    "miner.sources.a.unreached=keep",
                )
            ],
        ),
        (
            {"miner": {"sources": {"c": {"_target_": "embfit.miner.CrossEncoderMiner", "model": None}}}},
            [("miner.sources.c.model", "is not set; add miner.sources.c.model=...")],
        ),
        (
            {
                "model": {
                    "_target_": "embfit.model.X",
                    "first_stage": {"_target_": "embfit.model.Pretrained", "path": None},
                }
            },
            [("model.first_stage.path", "is not set; add model.first_stage.path=...")],
        ),
        (
            {
                "task": FINETUNE,
                "model": {"_target_": "embfit.model.PretrainedCrossEncoder", "candidates": "bm52"},
                "evaluator": {"systems": {"base": {}, "bm25": {}}},
            },
            [("model.candidates", "evaluator.systems has no 'bm52'; did you mean 'bm25'?")],
        ),
        (
            {
                "trainer": {
                    "callbacks": {"stop": {"_target_": "pytorch_lightning.callbacks.EarlyStopping"}, "off": None}
                }
            },
            [("trainer.callbacks.stop", "is the work of embfit's training; set training.patience instead")],
        ),
        (
            {
                "miner": {"_target_": "embfit.miner.ScoredMiner", "model": "/nowhere/ranker", "miner": {}},
                "training": {"guide": "owner/name"},
                "tuned": "./nowhere",
                "task": {"systems": ["a"]},
                "evaluator": {"systems": {"a": {**DENSE, "path": "~/nowhere"}, "b": {**DENSE, "path": "/nowhere"}}},
            },
            [
                ("miner.model", "/nowhere/ranker: there is no such file or folder"),
                ("evaluator.systems.a.path", "~/nowhere: there is no such file or folder"),
                ("tuned", "./nowhere: there is no such file or folder"),
            ],
        ),
        ({"task": FINETUNE, "evaluator": {"split": "test", "production": None, "dev_split": "dev"}}, []),
        ({"task": {}, "evaluator": {"split": "dev", "production": None, "dev_split": "dev"}}, []),
        (
            {"task": FINETUNE, "evaluator": {"split": "test", "production": "dev", "dev_split": "dev"}},
            [
                (
                    "evaluator.production",
                    "dev is evaluator.dev_split too, whose queries choose the weights that are reported; set one of "
                    "the two to another split",
                )
            ],
        ),
        ({"miner": {"unreached": "drop"}, "training": {"remine_every": None}}, []),
        ({"model": {"compile": True}, "training": {"gradient_checkpointing": False}}, []),
        (
            {"model": {"compile": True}, "training": {"gradient_checkpointing": True}},
            [
                (
                    "model.compile",
                    "true cannot go with training.gradient_checkpointing=true: each step would compile again; set one "
                    "of the two to false",
                )
            ],
        ),
        ({"miner": {"unreached": "keep"}, "training": {"remine_every": 1}}, []),
        (
            {"miner": {"unreached": "drop"}, "training": {"remine_every": 1}},
            [
                (
                    "miner.unreached",
                    "drop cannot go with training.remine_every, which mines for the same queries each time; set "
                    "miner.unreached=keep",
                )
            ],
        ),
        ({"loss": {"dims": [64, 128]}}, []),
        ({"loss": {"dims": None}}, []),
        ({"loss": {"dims": [128, 64, 64]}}, [("loss.dims", "[128, 64, 64] does not ascend; write [64, 128]")]),
        ({"loss": {"dims": [64, 64, 128]}}, [("loss.dims", "[64, 64, 128] does not ascend; write [64, 128]")]),
        ({"model": {"_target_": "embfit.model.Pretrained", "path": "x"}}, []),
        ({"data": {"_target_": "embfit.data.PythonDocs", "path": None}}, []),
        (
            {
                "model": {"_target_": "embfit.model.Pretrained", "path": None},
                "data": {"_target_": "embfit.data.Hub", "name": None},
            },
            [("model.path", "is not set; add model.path=..."), ("data.name", "is not set; add data.name=...")],
        ),
        (  # a shell's variables that are not set
            {"data": {"_target_": "embfit.data.Beir", "path": ""}, "store": {"dir": ""}, "run": {"dir": "x"}},
            [("data.path", "is not set; add data.path=..."), ("store.dir", "is empty; name a folder")],
        ),
        ({"task": FINETUNE, "model": {"dtype": "bfloat16", "lora": {"rank": 8}}}, []),
        ({"task": {"_target_": "embfit.task.evaluate.evaluate"}, "model": {"dtype": "bfloat16"}}, []),
        (
            {"task": FINETUNE, "model": {"dtype": "bfloat16", "lora": {"rank": None}}},
            [
                (
                    "model.dtype",
                    "bfloat16 weights swallow small updates; set model.dtype=float32, or train an adapter: "
                    "model.lora.rank=16",
                )
            ],
        ),
        ({"task": FINETUNE, "model": {"backend": "torch"}}, []),
        ({"task": {**REFRESH, "train": "never"}, "model": {"backend": "onnx"}, "bundle": {"name": "docs"}}, []),
        (
            {"task": {**REFRESH, "train": "auto"}, "model": {"backend": "onnx"}, "bundle": {"name": "docs"}},
            [
                (
                    "model.backend",
                    "onnx cannot train; set model.backend=torch, and choose onnx for the tuned model in the tasks that "
                    "only encode (evaluate, mine, index, search)",
                )
            ],
        ),
        (
            {"task": FINETUNE, "model": {"backend": "openvino"}},
            [
                (
                    "model.backend",
                    "openvino cannot train; set model.backend=torch, and choose openvino for the tuned model in the "
                    "tasks that only encode (evaluate, mine, index, search)",
                )
            ],
        ),
        ({"model": {"lora": {"dropout": 0.1}}, "training": {"dropout": True}}, []),
        (
            {"model": {"lora": {"dropout": 0.1}}, "training": {"dropout": False}},
            [("model.lora.dropout", "0.1 would be ignored while training.dropout=false; set that to true")],
        ),
        (
            {"task": FINETUNE, "model": {"query_adapter": {"rank": 8}, "freeze_layers": 0}, "training": ADAPTED},
            [],
        ),
        (
            {
                "task": FINETUNE,
                "model": {"query_adapter": {"rank": 8}, "freeze_layers": 2},
                "training": {"guide": "base", "remine_every": 1, "dropout": True},
            },
            [
                (key, f"{value} does nothing while model.query_adapter.rank=8 trains no weights; set it to {nothing}")
                for key, value, nothing in (
                    ("model.freeze_layers", 2, 0),
                    ("training.guide", "base", "null"),
                    ("training.remine_every", 1, "null"),
                    ("training.dropout", "true", "false"),
                )
            ],
        ),
        ({"task": FINETUNE, "model": {"query_adapter": {"rank": None}}, "training": {"guide": "base"}}, []),
        ({"trainer": {"strategy": "ddp"}}, []),
        ({"trainer": {"strategy": "fsdp"}, "model": {"compile": False}}, []),
        (
            {"trainer": {"strategy": "fsdp"}, "model": {"compile": True}},
            [
                (
                    "model.compile",
                    "true cannot go with trainer.strategy=fsdp, which gathers and frees each layer's weights; set "
                    "model.compile=false",
                )
            ],
        ),
        (
            {"trainer": {"strategy": "fsdp_cpu_offload"}},
            [
                (
                    "trainer.strategy",
                    "fsdp_cpu_offload cannot train here, since ranks make different numbers of backward passes; set "
                    "trainer.strategy=ddp, or fsdp, which evens them out",
                )
            ],
        ),
        (
            {
                "task": {"systems": ["base", "bm52", "fused"]},
                "evaluator": {"systems": {"base": {}, "bm25": {}, "fused": {"of": ["fused", "dense"]}}},
            },
            [
                ("task.systems", "evaluator.systems has no 'bm52'; did you mean 'bm25'?"),
                ("evaluator.systems.fused.of", "evaluator.systems has no 'dense'; it is one of base, bm25, fused"),
            ],
        ),
        ({"task": {"systems": None}, "evaluator": {"systems": None}}, []),
        (
            {"task": {"systems": ["again"]}, "evaluator": {"systems": {"base": {}, "again": {"of": "base"}}}},
            [],
        ),
        (
            {"task": {"systems": ["again"]}, "evaluator": {"systems": {"again": {"of": "base"}}}},
            [("evaluator.systems.again.of", "evaluator.systems has no 'base'; it is one of again")],
        ),
        (
            {"task": FINETUNE, "model": {"_target_": "embfit.model.PretrainedCrossEncoder"}, "loss": INFONCE},
            [("loss", "model=cross-encoder needs loss=listwise or loss=binary")],
        ),
        (
            {
                "task": FINETUNE,
                "model": {"_target_": "embfit.model.Pretrained", "path": "x"},
                "training": {"_target_": "embfit.training.ListTraining"},
                "loss": {"_target_": "embfit.loss.Binary"},
            },
            [
                ("loss", "is for model=cross-encoder; choose another one"),
                ("training", "is for model=cross-encoder; choose another one"),
            ],
        ),
        (
            {
                "task": {"_target_": "embfit.task.assess.assess"},
                "model": {"_target_": "embfit.model.PretrainedCrossEncoder"},
                "training": {"_target_": "embfit.training.ListTraining"},
            },
            [
                (
                    "model",
                    "cross-encoder is for task=finetune; elsewhere name its folder: miner.model=FOLDER to mine, "
                    "evaluator.systems.reranked.path=FOLDER to measure",
                ),
                ("training", "task=assess takes a Training, and ListTraining is not one; choose another training"),
            ],
        ),
        (
            {"task": {"_target_": "embfit.task.mine.mine"}, "miner": {"_target_": "embfit.loss.InfoNCE"}},
            [("miner", "task=mine takes a Mines, and InfoNCE is not one; choose another miner")],
        ),
        (
            {"data": {"_target_": "embfit.data.Pairs", "path": {"train": "/nowhere/a.csv", "test": "b.csv"}}},
            [("data.path.train", "/nowhere/a.csv: there is no such file or folder")],
        ),
        ({"task": FINETUNE, "model": {"_target_": "acme.Ranker"}, "loss": {"_target_": "acme.Loss"}}, []),
        ({"task": {"_target_": "embfit.task.search.search"}, "query": "what"}, []),
        ({"task": FINETUNE, "generator": EXTRACTIVE, "loss": DISTILL, "miner": NO_MINER}, []),
        ({"task": FINETUNE, "generator": EXTRACTIVE, "loss": DISTILL, "teacher": RANKER, "miner": HYBRID}, []),
        ({"task": FINETUNE, "loss": DISTILL, "teacher": RANKER, "miner": NO_MINER}, []),  # the data may have some
        (
            {"task": FINETUNE, "generator": EXTRACTIVE, "loss": DISTILL, "teacher": RANKER, "miner": NO_MINER},
            [
                (
                    "miner",
                    "finds no negatives for generated queries, and a teacher learns to put them below the positives; "
                    "set miner=hybrid miner.miner.negatives=8, or teacher=none",
                )
            ],
        ),
        (
            {"task": {"_target_": "embfit.task.search.search"}, "query": None},
            [("query", 'task=search needs a question: query="how to open a file"')],
        ),
        (
            {"task": {"_target_": "embfit.task.index.index"}, "bundle": {"name": None}},
            [("bundle.name", "is not set; name the bundle: bundle.name=docs")],
        ),
        ({"task": {"_target_": "embfit.task.index.index"}, "bundle": {"name": "docs"}}, []),
    ],
)
def test_rules(values, problems):
    assert found(**values) == problems


def test_what_is_to_be_a_folder_is_no_file(tmp_path):
    file = tmp_path / "file"
    file.touch()
    told = f"{file} is a file; name a folder"
    values = {"run": {"dir": str(file)}, "store": {"dir": str(file / "deep" / "down"), "enabled": True}}
    assert found(**values) == [("run.dir", told), ("store.dir", told)]
    values["store"]["enabled"] = False
    assert found(**values) == [("run.dir", told)]
    remote = {"run": {"dir": str(file)}, "store": {"dir": "s3://b/store"}}
    assert [key for key, _ in found(**remote)] == ["run.dir", "store.dir"]
    assert found(run={"dir": str(tmp_path / "new" / "deep")}, store={"dir": str(tmp_path)}) == []


def test_what_lies_beside_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").touch()
    data = {"_target_": "embfit.data.Pairs", "path": str(tmp_path / "own.json")}
    assert [(one.key, one.message) for one in locations_are_there({"data": data})] == [
        (
            "data.path",
            f"{tmp_path / 'own.json'}: there is no such file or folder; did you mean {tmp_path / 'own.jsonl'}?",
        )
    ]


def test_a_server_is_no_file() -> None:
    data = {"_target_": "embfit.generator.ApiGenerator", "url": "http://me:key@host/v1", "model": "./served"}
    assert list(locations_are_there({"generator": data})) == []
    assert list(addresses_can_be({"generator": data})) == []
