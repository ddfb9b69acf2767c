import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from embfit.sweep.space import Axis, Space, Span, read_space


def space(*overrides: str) -> Space:
    return read_space(OverridesParser.create().parse_overrides(list(overrides)))


def test_what_is_varied_and_what_is_not():
    found = space("model=small", "seed=1,2", "sweep.trials=3", "hydra/launcher=basic", "~a.b")
    assert found.fixed == ("model=small", "~a.b")
    assert found.axes == (Axis("seed", ("1", "2")),)
    assert found.overrides({"seed": "2"}) == ["model=small", "~a.b", "seed=2"]


@pytest.mark.parametrize(
    ("override", "axis"),
    [
        ("a.b=x,y", Axis("a.b", ("x", "y"))),
        ("a='x y',[1,2]", Axis("a", ("'x y'", "[1,2]"))),
        ("a=range(1,4)", Axis("a", ("1", "2", "3"), Span(1, 3, 1))),
        (
            "a=range(0.1,0.31,0.1)",
            Axis("a", ("0.1", "0.2", "0.30000000000000004"), Span(0.1, 0.30000000000000004, 0.1)),
        ),
        ("a=interval(1,9)", Axis("a", span=Span(1, 9))),
        ("a=tag(log,interval(1e-5,1e-4))", Axis("a", span=Span(1e-5, 1e-4, log=True))),
    ],
)
def test_the_grammar_is_hydras(override, axis):
    assert space(override).axes == (axis,)


def test_samples_have_every_choice_and_the_ends_of_a_range():
    """A range of a thousand whole numbers is no thousand configurations to compose before the first job."""
    found = list(space("a=x,y,z", "b=range(10,1000)").samples())
    assert found == [{"a": "x", "b": "10"}, {"a": "y", "b": "999"}, {"a": "z", "b": "999"}]


def test_the_last_mention_counts():
    assert space("a=1,2", "a=3").axes == ()
    assert space("a=1,2", "a=3").fixed == ("a=3",)


def test_whole_numbers():
    assert Span(1, 9).whole
    assert not Span(1, 9.0).whole
    assert not Span(1, 9, 0.5).whole
