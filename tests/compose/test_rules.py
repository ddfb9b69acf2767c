import pytest

from embfit.compose.rules import RULES


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
        ({"loss": {"dims": [64, 128]}}, []),
        ({"loss": {"dims": None}}, []),
        ({"loss": {"dims": [128, 64, 64]}}, [("loss.dims", "[128, 64, 64] does not ascend; write [64, 128]")]),
        ({"model": {"path": "x"}}, []),
        (
            {"model": {"path": None}},
            [("model.path", "is not set; give a folder or a name on the Hub: model.path=FOLDER_OR_NAME")],
        ),
        ({"task": {"_target_": "embfit.task.search.search"}, "query": "what"}, []),
        (
            {"task": {"_target_": "embfit.task.search.search"}, "query": None},
            [("query", 'task=search needs a question: query="how to open a file"')],
        ),
    ],
)
def test_rules(values, problems):
    assert found(**values) == problems
