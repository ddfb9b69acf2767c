import functools
import os
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import Field

from embfit.compose.targets import MissingTargetError, find_target, type_hints

if TYPE_CHECKING:
    from nowhere import Unknown


class Example:
    def __init__(self, depth: "Annotated[int, Field(ge=1)]", name: str = "x", *rest: int, **more: float) -> None: ...


def unknown(depth: int, other: "Unknown", *, late: bool = False) -> None: ...


@functools.wraps(unknown)
def wrapped(*arguments, **named): ...


def test_a_class_has_the_parameters_of_its_constructor():
    target = find_target("tests.compose.test_targets.Example")
    assert list(target.parameters) == ["depth", "name"]
    assert target.required == ["depth"]
    assert target.hints["name"] is str
    assert target.hints["depth"].__metadata__[0].metadata[0].ge == 1
    assert target.open_ended
    assert target.module == "tests.compose.test_targets"


def test_a_hint_that_cannot_be_evaluated_leaves_the_others():
    assert type_hints(unknown)["depth"] is int
    target = find_target("tests.compose.test_targets.wrapped")
    assert target.hints == {"depth": int, "other": Any, "late": bool}
    assert not target.open_ended


def test_the_module_is_where_the_object_comes_from():
    assert find_target("embfit.compose.targets.inspect.signature").module == "inspect"
    target = find_target("os.getcwd")
    assert (target.call, target.module, list(target.parameters)) == (os.getcwd, "posix", [])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "embfit.compose.targets.find_targt",
            "embfit.compose.targets has no 'find_targt'; did you mean 'find_target'?",
        ),
        ("embfit.compose.nowhere.Thing", "embfit.compose has no 'nowhere'"),
        ("nowhere.Thing", "there is no module nowhere"),
        ("Thing", "'Thing' is not the dotted name of a class or function"),
        ("embfit..x", "'embfit..x' is not the dotted name of a class or function"),
        ("embfit.__version__", "embfit.__version__ is a str, which cannot be called"),
    ],
)
def test_a_name_that_leads_nowhere(name, message):
    with pytest.raises(MissingTargetError) as error:
        find_target(name)
    assert str(error.value).startswith(message)


def test_a_module_whose_own_import_fails(tmp_path, monkeypatch):
    (tmp_path / "needy").mkdir()
    (tmp_path / "needy" / "__init__.py").touch()
    (tmp_path / "needy" / "missing.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "needy" / "broken.py").write_text("raise ImportError('wrong version of x')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingTargetError, match="needs the package not_installed_anywhere, which is not installed"):
        find_target("needy.missing.Thing")
    with pytest.raises(MissingTargetError, match=r"imported: .*broken\.py:1: ImportError: wrong version of x"):
        find_target("needy.broken.Thing")
    (tmp_path / "needy" / "unclosed.py").write_text("x = 1\ny = (\n")
    (tmp_path / "needy" / "zero.py").write_text("x = 1\ny = x / 0\n")
    with pytest.raises(MissingTargetError, match=r"needy\.unclosed\.X cannot be imported: .*unclosed\.py:2: '\(' was"):
        find_target("needy.unclosed.X")
    with pytest.raises(MissingTargetError, match=r"cannot be imported: .*zero\.py:2: ZeroDivisionError: division by"):
        find_target("needy.zero.X")
