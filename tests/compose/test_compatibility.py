from collections.abc import Callable
from typing import Annotated, Any, Protocol, runtime_checkable

import pytest

from embfit.compose.compatibility import accepts, groups_fit_task
from embfit.compose.tasks import task
from embfit.type_hints import ChosenBy, Having


class Bi: ...


class Legal(Bi): ...


class Cross:
    on_lists = True


class Late: ...


@runtime_checkable
class Mines(Protocol):
    def mine(self) -> None: ...


class Digger:
    def mine(self) -> None: ...


class Unchecked(Protocol):
    def load(self) -> None: ...


@pytest.mark.parametrize(
    ("hint", "kind", "fits"),
    [
        (Bi, Bi, True),
        (Bi, Legal, True),  # a pack's own class, derived from ours
        (Bi, Cross, False),
        (Bi | None, Legal, True),
        (Bi | Cross, Cross, True),
        (Bi | Cross, Late, False),
        (Annotated[Bi | Cross, "words"], Late, False),
        (Annotated[object, Having("on_lists")], Cross, True),
        (Annotated[object, Having("on_lists")], Bi, False),
        (Annotated[object, Having("on_lists", False)], Bi, True),
        (Annotated[object, Having("on_lists", False)], Cross, False),
        (Mines, Digger, True),
        (Mines, Bi, False),
        (Unchecked, Bi, True),
        (Any, Bi, True),
        (Callable[[], int], Bi, True),
        (None, Bi, True),
    ],
)
def test_what_a_hint_takes(hint, kind, fits):
    assert accepts(hint, kind) is fits


def bis(model: Bi, loss: Annotated[object, Having("on_lists", False)]) -> None: ...


def crosses(model: Annotated[Cross | Legal, ChosenBy("model=cross")], loss: Annotated[object, Having("on_lists")]): ...


@task(variants=(bis, crosses))
def train(model: Bi | Cross, loss: object, seed: int = 0) -> None: ...


def made() -> Cross:
    return Cross()


def at(name: str, **more: Any) -> dict[str, Any]:
    return {"_target_": f"tests.compose.test_compatibility.{name}", **more}


@pytest.mark.parametrize(
    ("chosen", "problems"),
    [
        ({"model": at("Bi"), "loss": at("Late")}, []),
        ({"model": at("Cross"), "loss": at("Cross")}, []),
        ({"model": at("Legal"), "loss": at("Cross")}, [("loss", "is for model=cross; choose another one")]),
        ({"model": at("Cross"), "loss": at("Late")}, [("loss", "a Late does not go with this model")]),
        (
            {"model": at("Late")},
            [("model", "task=train takes a Bi or Cross, and Late is not one; choose another model")],
        ),
        ({"model": at("made"), "loss": at("Cross")}, []),  # a function that says what it returns
        ({"model": at("made"), "loss": at("Late")}, [("loss", "a Late does not go with this model")]),
        ({"model": at("Late", _partial_=True)}, []),
        ({"model": at("nowhere"), "loss": at("Cross")}, []),
        ({"model": None, "seed": 3}, []),
    ],
)
def test_groups_are_held_to_the_tasks_hints(chosen, problems):
    found = groups_fit_task({"task": at("train"), **chosen})
    assert [(problem.key, problem.message) for problem in found] == problems


def test_without_a_task_there_is_nothing_to_hold():
    assert list(groups_fit_task({"model": at("Late")})) == []
    assert list(groups_fit_task({"task": at("gone"), "model": at("Late")})) == []
