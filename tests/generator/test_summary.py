"""What a report says of a generation: each filter's count and examples of what it dropped."""

from __future__ import annotations

from embfit.generator.filter_marks import ORDER, Marks
from embfit.generator.plan import SourceDocument
from embfit.generator.protocol import GeneratedQuery, Generation
from embfit.generator.summary import describe_generation, why_none_is_kept


def described(dropped_by: list[str | None], examples: int = 10) -> dict:
    documents = [SourceDocument(row, f"d{row}", "text " * 100, "", "", f"{row:04d}") for row in range(len(dropped_by))]
    queries = [GeneratedQuery(f"q{one.row}", f"query {one.row}", one, "claim") for one in documents]
    ranks = [1 if row % 2 else None for row in range(len(queries))]
    marks = Marks(dropped_by, {"dense": ranks}, [0] * len(queries))
    return describe_generation("writer", Generation(queries, {"requests": len(queries)}), marks, examples)


def test_each_filter_has_ten_examples_spread_over_the_documents() -> None:
    turns = [None, *ORDER]
    found = described([turns[row % len(turns)] for row in range(35 * len(turns))])
    assert list(found["examples"]) == ["kept", *ORDER]
    assert found["dropped"] == dict.fromkeys(ORDER, 35)
    assert found["kept"] == 35
    for place, name in enumerate(["kept", *ORDER]):
        shown = [int(one["query"].removeprefix("query ")) for one in found["examples"][name]]
        assert shown == [place + len(turns) * step for step in (0, 3, 7, 10, 14, 17, 21, 24, 28, 31)]  # of 35
        assert len(found["examples"][name][0]["document"]["text"]) == 300
        assert [one["ranks"]["dense"] for one in found["examples"][name]] == [1 if row % 2 else None for row in shown]


def test_examples_of_nineteen_are_spread_as_well() -> None:
    shown = [int(one["query"].removeprefix("query ")) for one in described(["copy"] * 19)["examples"]["copy"]]
    assert shown == [0, 1, 3, 5, 7, 9, 11, 13, 15, 17]


def test_fewer_than_ten_are_all_shown() -> None:
    found = described([None, "copy", "copy", "leak", "copy"])
    assert {name: len(shown) for name, shown in found["examples"].items()} == {"kept": 1, "leak": 1, "copy": 3}
    assert found["styles"] == {"claim": {"generated": 5, "kept": 1}}
    assert described([None], examples=0)["examples"] == {}


def test_why_none_is_kept() -> None:
    assert why_none_is_kept(described(["copy", "copy", "leak"])) == "filters dropped all of them: leak 1, copy 2"
    assert why_none_is_kept(described([])) == "none was written"
