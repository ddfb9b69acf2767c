import pytest

from embfit.data.docstring_pairs import content_words, docstring_pairs, gives_away, is_clear
from embfit.data.docstrings import Docstring

REST = "A long explanation of ten words or more follows here, so that it counts as one."
OTHER = "Something entirely different is said about another thing, with no sequence of words in common at all."
THIRD = "Yet another text, unlike both of these, which nobody would ever take for a copy of theirs."


def pairs(*docstrings):
    return docstring_pairs(Docstring(*one) for one in docstrings)


def test_a_pair():
    made = pairs(("a.b", "C.run", "Walk the whole directory.", REST))
    assert made.documents == [("a.b:C.run", "a.b.C.run", REST)]
    assert made.queries == [("q:a.b:C.run", "Walk the whole directory.")]
    assert made.relevant == {"q:a.b:C.run": {"a.b:C.run": 2}}


def test_copied_documentation_is_one_document_with_two_queries():
    example = REST + "\n\n>>> only in this one\n"
    made = pairs(("a", "f", "Walk the whole directory.", REST), ("b", "g", "Visit every single file.", example))
    assert [name for name, _, _ in made.documents] == ["a:f"]
    assert made.relevant == {"q:a:f": {"a:f": 2}, "q:b:g": {"a:f": 2}}
    assert made.facts["documents_merged"] == 1


def test_equal_summaries_are_one_query_with_two_documents():
    made = pairs(("a", "f", "Walk the whole directory.", REST), ("b", "g", "Walks a whole directory", OTHER))
    assert made.queries == [("q:a:f", "Walk the whole directory.")]
    assert made.relevant == {"q:a:f": {"a:f": 2, "b:g": 2}}
    assert made.facts["summaries_merged"] == 1


def test_order_makes_another_summary_but_a_near_one():
    made = pairs(
        ("a", "f", "Turn a path into an address.", REST),
        ("b", "g", "Turn an address into a path.", OTHER),
        ("c", "h", "Turn a path into its hash.", THIRD),
    )
    assert made.relevant == {"q:a:f": {"a:f": 2, "b:g": 1}, "q:b:g": {"b:g": 2, "a:f": 1}, "q:c:h": {"c:h": 2}}
    assert made.facts["near_summaries_graded"] == 2


def test_what_explains_nothing_is_left_out():
    made = pairs(
        ("a", "f", "Walk the whole directory.", "Too short to explain."),
        ("a", "g", "Visit every single file.", ">>> " + REST),
        ("a", "h", "Remove each single line.", "Deprecated: " + REST),
        ("a", "i", "Do it.", REST),
        ("a", "j", "Keep one good pair.", REST),
    )
    assert [query for query, _ in made.queries] == ["q:a:j"]
    assert made.facts == {
        "documentation_strings": 5,
        "vague_summaries_left_out": 1,
        "short_rests_left_out": 3,
        "documents_merged": 0,
        "summaries_merged": 0,
        "near_summaries_graded": 0,
        "documents_with_name": 1,
    }


def test_a_repeated_summary_is_cut_out_of_the_document():
    made = pairs(("a", "f", "Walk the whole directory.", f"Usage: none.\nWalk the\n  whole directory. {REST}"))
    assert made.documents[0][2] == f"Usage: none.\n {REST}"


def test_no_pairs_are_no_error_here():
    assert pairs(("a", "f", "Nothing more.", "")).queries == []


@pytest.mark.parametrize(
    ("name", "query", "gives"),
    [
        ("shutil.rmtree", "Recursively delete a directory tree.", True),
        ("json.JSONDecoder.raw_decode", "Decoding of a document.", True),
        ("os.path.getsize", "Size of a file.", True),
        ("a.b.HTTPServer", "Serve a socket over http.", True),
        ("logging.Handler.emit", "Do whatever it takes to send the record.", False),
        ("statistics.multimode", "The most frequently occurring values.", False),
        ("a.do_it", "Do something with it.", False),
    ],
)
def test_names_that_give_the_query_away(name, query, gives):
    assert gives_away(name, query) is gives


def test_a_name_is_hidden_if_it_gives_any_of_the_queries_away():
    made = pairs(("a", "walk", "Visit every single file.", REST), ("b", "g", "Walk the whole directory.", REST))
    assert made.documents == [("a:walk", "", REST)]


def test_content_words():
    assert content_words("Returns the Keys of a `dict`'s s") == ("return", "key", "dict")


@pytest.mark.parametrize(
    ("summary", "clear"),
    [
        ("Close the file.", False),
        ("Close the open file.", True),
        ("attrtext = 1*(%x21 / %x23-26 / %x2A)", False),
        ("word " * 41, False),
        ("", False),
    ],
)
def test_clear_summaries(summary, clear):
    assert is_clear(summary) is clear
