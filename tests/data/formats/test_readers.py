"""What each format's reader makes of small files, block by block."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from embfit.data.formats.block import Block
from embfit.data.formats.html_page import read_html
from embfit.data.formats.markdown_text import read_markdown
from embfit.data.formats.plain_text import read_plain_text
from embfit.data.formats.readers import FORMATS, UnreadableError, decode, read_blocks


def test_markdown_is_read_as_its_reader_sees_it() -> None:
    text = """---
title: "The guide"
---
Before *all* headings.

## Install

Run `pip`  <br>
[at once](https://example.org "now"), ![a picture](x.png) &amp; wait.

- first
- second

  with more

```sh
pip install x

pip list
```

| name | type |
|---|---|
| **a** | int |

Under
=====

<div>Raw <b>HTML</b></div>
"""
    assert list(read_markdown(text)) == [
        Block('title: "The guide"', "line 1", aside=True),
        Block("Before all headings.", "line 4"),
        Block("Install", "line 6", 2),
        Block("Run pip at once, a picture & wait.", "line 8"),
        Block("first", "line 11"),
        Block("second", "line 12"),
        Block("with more", "line 14"),
        Block("pip install x\n\npip list", "line 17"),
        Block("name | type\na | int", "line 22"),
        Block("Under", "line 26", 1),
        Block("Raw HTML", "line 29"),
    ]


def test_the_title_of_front_matter_stands_in_for_a_heading() -> None:
    assert list(read_markdown("---\ntitle: The guide\n---\n## Install\nRun it.\n"))[1:] == [
        Block("The guide", "line 1", 1),
        Block("Install", "line 4", 2),
        Block("Run it.", "line 5"),
    ]


def test_deep_lists_keep_their_text() -> None:
    deep = "".join(f"{'  ' * depth}- level {depth}\n" for depth in range(60))
    assert [block.text for block in read_markdown(deep)] == [f"level {depth}" for depth in range(60)]


def test_html_without_what_is_navigation() -> None:
    page = """<html><head><title>Install — Manual</title><style>p {}</style></head><body>
<nav><ul><li>Home<li>Next</ul></nav>
<main><h1>Install<a class="headerlink">¶</a></h1>
<p>Run <code>pip</code>, then
wait.<p>An unclosed paragraph<script>var x</script>
<pre>a = 1

b = 2</pre>
<table><tr><th>name</th><th>type</th></tr><tr><td><p>a</p></td><td></td><td>int</td></tr></table>
<nav>On this page</nav>
</main><footer>Imprint</footer></body></html>"""
    assert list(read_html(page)) == [
        Block("Home", "line 2", aside=True),
        Block("Next", "line 2", aside=True),
        Block("Install", "line 3", 1),
        Block("Run pip, then wait.", "line 4"),
        Block("An unclosed paragraph", "line 5"),
        Block("a = 1\n\nb = 2", "line 6"),
        Block("name | type\na | | int", "line 9"),
        Block("On this page", "line 10", aside=True),
        Block("Imprint", "line 11", aside=True),
    ]


def test_the_title_of_a_page_stands_in_for_a_heading() -> None:
    assert list(read_html("<title>Install &amp; run</title><h2>First</h2>Do it.<h2>Then<p>that.")) == [
        Block("Install & run", "line 1", 1),
        Block("First", "line 1", 2),
        Block("Do it.", "line 1"),
        Block("Then", "line 1", 2),
        Block("that.", "line 1"),
    ]


def test_a_table_that_lays_out_a_page_keeps_its_headings() -> None:
    page = "<table><tr><td>Menu</td><td><h1>Install</h1>Run it.</td></tr></table>After."
    assert [(block.text, block.level) for block in read_html(page)] == [
        ("Menu |", 0),
        ("Install", 1),
        ("Run it.", 0),
        ("After.", 0),
    ]


def test_plain_text_has_paragraphs() -> None:
    assert list(read_plain_text("\n  One\n  two  \n\n\n three\f\nfour")) == [
        Block("One\n  two", "line 2"),
        Block("three", "line 6"),
        Block("four", "line 8"),
    ]


def test_restructured_text() -> None:
    pytest.importorskip("docutils")
    text = """=====
Guide
=====

See :func:`~os.open` and :ref:`that <label>`.

Install
-------

.. note:: Be quick.

.. versionadded:: 1.2
   It runs.

   .. unknown:: argument
      :option: x

      Inner text.

.. toctree::
   :maxdepth: 2

   other

::

   code here
     indented

.. code-block:: python

   x = 1

.. comment

======  =====
name    type
======  =====
a       int
======  =====

Deeper
~~~~~~

:param x: the value
"""
    assert read_blocks(text.encode(), FORMATS[".rst"], None) == [
        Block("Guide", "line 2", 1),
        Block("See os.open and that.", "line 5"),
        Block("Install", "line 7", 2),
        Block("Be quick.", "line 10"),
        Block("1.2", "line 12"),
        Block("It runs.", "line 13"),
        Block("argument", "line 15"),
        Block("Inner text.", "line 18"),
        Block("other", "line 23", aside=True),
        Block("code here\n  indented", "line 27"),
        Block("x = 1", "line 33"),
        Block("name | type\na | int", "line 36"),
        Block("Deeper", "line 42", 3),
        Block("param x", "line 45"),
        Block("the value", "line 45"),
    ]


def test_docx() -> None:
    document = pytest.importorskip("docx").Document()
    document.add_heading("Guide", 0)
    document.add_heading("Install", 1)
    document.add_paragraph("Run  it.")
    document.add_paragraph("")
    table = document.add_table(2, 2)
    for at, said in enumerate(["name", "type", "a", "int"]):
        table.cell(at // 2, at % 2).text = said
    file = io.BytesIO()
    document.save(file)
    assert read_blocks(file.getvalue(), FORMATS[".docx"], None) == [
        Block("Guide", "paragraph 1", 1),
        Block("Install", "paragraph 2", 2),
        Block("Run it.", "paragraph 3"),
        Block("name | type\na | int", "paragraph 5"),
    ]


def pdf(pages: list[list[str]], outline: Sequence[tuple[str, int]] = ()) -> bytes:
    """Make a PDF of lines of text."""
    pypdf = pytest.importorskip("pypdf")
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = pypdf.PdfWriter()
    font = DictionaryObject({NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1")})
    font[NameObject("/BaseFont")] = NameObject("/Helvetica")
    for lines in pages:
        page = writer.add_blank_page(600, 800)
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        shown = "".join(f"BT /F1 12 Tf 50 {750 - 20 * at} Td ({line}) Tj ET\n" for at, line in enumerate(lines))
        stream.set_data(shown.encode())
        page[NameObject("/Contents")] = stream
    for title, number in outline:
        writer.add_outline_item(title=title, page_number=number)
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def test_pdf_is_parted_by_its_outline() -> None:
    pages = [
        ["The Manual", "Words before.", "1 Install", "An unu-", "sual line.", "page 1"],
        ["The Manual", "More.", "page 2"],
        ["The Manual", "Last.", "page 3"],
    ]
    content = pdf(pages, [("Install", 0), ("Elsewhere", 2)])
    assert read_blocks(content, FORMATS[".pdf"], None) == [
        Block("The Manual", "page 1", aside=True),
        Block("Words before.", "page 1"),
        Block("Install", "page 1", 1),
        Block("An unusual line.", "page 1"),
        Block("page 1", "page 1", aside=True),
        Block("The Manual", "page 2", aside=True),
        Block("More.", "page 2"),
        Block("page 2", "page 2", aside=True),
        Block("Elsewhere", "page 3", 1),
        Block("The Manual", "page 3", aside=True),
        Block("Last.", "page 3"),
        Block("page 3", "page 3", aside=True),
    ]


@pytest.mark.parametrize("suffix", [".pdf", ".docx"])
def test_a_file_that_is_no_such_file_says_so(suffix: str) -> None:
    pytest.importorskip(str(FORMATS[suffix].needs))
    with pytest.raises(UnreadableError) as error:
        read_blocks(b"no such thing", FORMATS[suffix], None)
    assert error.value.reason == "malformed"
    assert "\n" not in error.value.detail


def test_encodings() -> None:
    assert decode("é\r\nx".encode("utf-8-sig"), False, None) == "é\nx"
    assert decode("é".encode("utf-16"), False, None) == "é"
    assert decode("é".encode("latin1"), False, "latin1") == "é"
    assert decode('<meta charset="latin1">é'.encode("latin1"), True, None).endswith("é")
    with pytest.raises(UnreadableError) as error:
        decode("a\né".encode("latin1"), False, None)
    assert (error.value.reason, error.value.detail) == ("not_utf8", "byte 0xe9 in line 2")
    with pytest.raises(UnreadableError) as error:
        decode(b"\x7fELF\0\0", False, "latin1")
    assert error.value.reason == "binary"


def test_a_deep_page_does_not_fail(tmp_path: Path) -> None:
    deep = "<div>" * 5000 + "text" + "</div>" * 5000
    assert list(read_html(deep)) == [Block("text", "line 1")]
