import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from embfit.data.files import Delimited, JsonLines, Parquet, content_digest, named_path, read_lines, text_of
from embfit.errors import UserError


def test_every_json_object_comes_with_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": "\xc3\xa9"}')
    assert list(JsonLines(path)) == [(f"{path}:1", {"a": 1}), (f"{path}:3", {"a": "é"})]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a" 1}', "not valid JSON: Expecting ':' delimiter at position 6"),
        (b"[1, 2]", "expected one JSON object per line, got a list"),
        (b"3", "expected one JSON object per line, got int"),
        (b'{"a": "caf\xe9"}', "not UTF-8 (byte 0xe9 at position 11); convert the file, for example with `iconv"),
        (b"[" * 200_000, "the JSON cannot be read: maximum recursion depth exceeded"),
        (b'{"a": ' + b"9" * 5000 + b"}", "the JSON cannot be read: Exceeds the limit (4300 digits)"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n" + line + b"\n{}\n")
    with pytest.raises(UserError) as error:
        list(JsonLines(path))
    assert str(error.value).startswith(f"{path}:2: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2}]', '[\n  {"a": 1}\n]\n'])
def test_an_array_is_not_json_lines(tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        list(JsonLines(path))
    said = "expected one JSON object per line, got an array; put each object on its own line with `jq"
    assert str(error.value) == f"{path}:1: {said} -c '.[]'`"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path, encoding):
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"a": 1}\n', encoding=encoding)
    with pytest.raises(UserError) as error:
        list(read_lines(path))
    assert str(error.value) == f"{path}: the file is UTF-16; convert it with `iconv -f utf-16 -t utf-8`"


def test_a_text_of_many_lines_in_csv_counts_all_of_them(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('q,p\n"one\ntwo","say ""x"""\n\nthree,four\nfive\n')
    rows = iter(Delimited(path, ","))
    assert next(rows) == (f"{path}:2", {"q": "one\ntwo", "p": 'say "x"'})
    assert next(rows) == (f"{path}:5", {"q": "three", "p": "four"})
    with pytest.raises(UserError, match=r"a.csv:6: expected 2 columns, got 1"):
        next(rows)


def test_quotation_marks_in_tsv_mean_nothing(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('q\tp\n"an open quote\t5" wide\n')
    assert list(Delimited(path, "\t")) == [(f"{path}:2", {"q": '"an open quote', "p": '5" wide'})]


def test_a_csv_text_may_be_longer_than_the_usual_limit(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"q,p\nx,{'y' * 200_000}\n")
    ((_, row),) = Delimited(path, ",")
    assert len(row["p"]) == 200_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q,q\n1,2\n", "a.csv:1: the header names a column twice: q, q"),
        (
            "q;p\n1;2\n",
            "a.csv:1: the header is one column, 'q;p'; columns of a .csv file stand between commas, and this one has "
            "semicolons",
        ),
        ('q,p\n1,"2', "a.csv:2: not valid CSV: unexpected end of data"),
        ('q,p\n1,"2" 3\n', "a.csv:2: not valid CSV: ',' expected after '\"'"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        list(Delimited(path, ","))
    assert message in str(error.value)


def test_parquet_rows_are_numbered(tmp_path):
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"q": ["a", "b"], "n": [["x", "y"], None]}), path)
    assert list(Parquet(path)) == [
        (f"{path}: row 1", {"q": "a", "n": ["x", "y"]}),
        (f"{path}: row 2", {"q": "b", "n": None}),
    ]
    path.write_text("not that")
    with pytest.raises(UserError, match=r"a.parquet: cannot be read as a Parquet file: "):
        list(Parquet(path))


def test_records_can_be_read_twice(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n')
    records = JsonLines(path)
    assert list(records) == list(records)
    assert str(records) == str(path)


def test_text_fields():
    record = {"text": "x", "null": None, "id": 7, "list": [1], "yes": True}
    assert text_of("here", record, "text") == "x"
    assert text_of("here", record, "null") == ""
    assert text_of("here", record, "id") == "7"
    assert text_of("here", record, "title", "none") == "none"
    with pytest.raises(UserError, match=r'^here: there is no "title"; the record has text, null, id, list, yes$'):
        text_of("here", record, "title")
    with pytest.raises(UserError, match=r'^here: "list" must be a text, got a list$'):
        text_of("here", record, "list")
    with pytest.raises(UserError, match=r'^here: "yes" must be a text, got true or false$'):
        text_of("here", record, "yes")


def test_lines_keep_what_is_within_them(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("a\u2028b\x0bc\n".encode())  # str.splitlines would make three lines of it
    assert list(read_lines(path)) == [(1, "a\u2028b\x0bc\n")]


def test_a_digest_is_of_the_content_alone(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    assert content_digest(tmp_path / "a") == content_digest(tmp_path / "b")
    assert content_digest(tmp_path / "a").startswith("2d711642b726b044")  # printf x | sha256sum
    with pytest.raises(UserError, match=r"cannot read .*/c: No such file or directory"):
        content_digest(tmp_path / "c")
    with pytest.raises(UserError, match=r"Is a directory"):
        content_digest(tmp_path)


def test_json_and_python_agree_on_ids(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"_id": 12345678901234567890}))
    ((place, record),) = JsonLines(tmp_path / "a.jsonl")
    assert text_of(place, record, "_id") == "12345678901234567890"


def test_a_named_path_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").touch()
    assert named_path(str(tmp_path / "own.jsonl"), "data.path") == tmp_path / "own.jsonl"
    for name in ("own.json", "onw.jsonl"):
        with pytest.raises(UserError) as error:
            named_path(str(tmp_path / name), "data.path")
        assert str(error.value) == (
            f"{tmp_path / name}: there is no such file or folder (data.path); did you mean {tmp_path / 'own.jsonl'}?"
        )
    with pytest.raises(UserError, match=r"there is no such file or folder \(data\.path\)$"):
        named_path(str(tmp_path / "elsewhere" / "own.jsonl"), "data.path")
