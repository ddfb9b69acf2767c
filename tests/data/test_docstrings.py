import pytest

from embfit.data.docstrings import prose, read_docstrings, split_summary

SOURCE = '''
"""A module. It has more to say."""

class Outer:
    """Class."""

    class Inner:
        def method(self):
            """Method.

            With details.
            """

    async def later(self):
        """Later."""
        def hidden():
            """Not reachable."""

if True:
    try:
        def conditional(): "One line"
    except ImportError:
        pass

def silent(): ...

raise RuntimeError("never imported")
'''


def test_every_definition_that_can_be_called_is_read():
    found = [(one.name, one.summary, one.rest) for one in read_docstrings(SOURCE, "package.module")]
    assert found == [
        ("", "A module.", "It has more to say."),
        ("Outer", "Class.", ""),
        ("Outer.Inner.method", "Method.", "With details."),
        ("Outer.later", "Later.", ""),
        ("conditional", "One line", ""),
    ]
    assert {one.module for one in read_docstrings(SOURCE, "package.module")} == {"package.module"}


def test_declared_encodings_are_honoured():
    source = '# -*- coding: latin-1 -*-\n"""Café."""\n'.encode("latin-1")
    assert [one.summary for one in read_docstrings(source, "m")] == ["Café."]
    with pytest.raises(SyntaxError):
        list(read_docstrings(source[26:], "m"))
    with pytest.raises(SyntaxError):
        list(read_docstrings("print 'two'", "m"))


@pytest.mark.parametrize(
    ("text", "summary", "rest"),
    [
        ("Do this.\n\nThen that.", "Do this.", "Then that."),
        ("Do this. Then\nthat.\n\nMore.", "Do this.", "Then\nthat.\n\nMore."),
        ("Do this, over\ntwo lines\n\nMore.", "Do this, over two lines", "More."),
        ("Use e.g. This or i.e. That. Then stop.", "Use e.g. This or i.e. That.", "Then stop."),
        ("By J. Smith. Thanks.", "By J. Smith.", "Thanks."),
        ("Return x.y or 1.5 of it. See z.", "Return x.y or 1.5 of it.", "See z."),
        ("get(key, default=None) -> value.\n\nReturn it.\n\nOr not.", "Return it.", "Or not."),
        ("get(key)\nReturn it. Or not.", "Return it.", "Or not."),
        ("Why? Because.", "Why?", "Because."),
        ("One.", "One.", ""),
    ],
)
def test_the_first_sentence_is_the_summary(text, summary, rest):
    assert split_summary(text) == (summary, rest)


def test_prose_explains():
    text = "Explained here.\n\n>>> 1 + 1\n2\n\nAs in:\n>>> 2\n2\n\n.. versionadded:: 3.8\n\nThis is deprecated.\n\nEnd."
    assert prose(text) == "Explained here.\n\nAs in:\n\nEnd."
