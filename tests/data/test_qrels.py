import pytest

from embfit.data.qrels import QrelsFile, grade_of, read_qrels
from embfit.errors import UserError


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq1\td 1\t2\n\nq2\td2\t0\n",
        "q1\td 1\t2\nq2\td2\t0\n",
        "qid\tpid\tanswers\nq1\td 1\t2\nq2\td2\t0\n",
        "topic\titeration\tdocument\tRelevance\nq1\t0\td 1\t2\nq2\t0\td2\t0\n",
        "q1\td 1\t2.0\r\nq2\td2\t0\r\n",
        "q1\t0\td 1\t2\nq2\t0\td2\t0\n",
        "\ufeffq1\tQ0\td 1\t2\nq2 0 d2 0\n",
    ],
)
def test_the_dialects_say_the_same(tmp_path, text):
    path = tmp_path / "test.tsv"
    path.write_text(text)
    assert [line[1:] for line in QrelsFile(path)] == [("q1", "d 1", 2), ("q2", "d2", 0)]


def test_places_are_lines(tmp_path):
    path = tmp_path / "test.tsv"
    path.write_text("query-id\tcorpus-id\tscore\n\nq1\td1\t1\n")
    assert [line.place for line in QrelsFile(path)] == [f"{path}:3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query-id\tcorpus-id\tscore\n" + "q\td\t1\n" * 39 + "q\td\n", "test.tsv:41: expected 3 columns, got 2"),
        ("q\td\n", "test.tsv:1: expected 3 columns, got 2"),
        (
            "query-id,corpus-id,score\nq,d,1\n",
            "test.tsv:1: expected 3 columns, got 1; separate columns with tabs, not commas",
        ),
        ("q 0 d 1\nq d 1\n", "test.tsv:2: expected 4 columns, got 3"),
        ("q1\td1\t0.5\nq2\td2\t1\n", "test.tsv:1: \"grade\" must be a whole number, got '0.5'"),
        ("q1\td1\tyes\nq2\td2\t1\n", "test.tsv:1: \"grade\" must be a whole number, got 'yes'"),
        ("q1\td1\tnan\nq2\td2\t1\n", "test.tsv:1: \"grade\" must be a whole number, got 'nan'"),
        ("q\td\t1\nq\td\tyes\n", "test.tsv:2: \"grade\" must be a whole number, got 'yes'"),
        ("q\td\t1\nq\td\t0.5\n", "test.tsv:2: \"grade\" must be a whole number, got '0.5'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, message):
    path = tmp_path / "test.tsv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        list(QrelsFile(path))
    assert str(error.value).endswith(message)


def test_a_file_is_read_as_a_collection_is(tmp_path):
    path = tmp_path / "test.tsv"
    path.write_text("query-id\tcorpus-id\tscore\nq1\ta\t1.0\nq1\tb\t-2\nq1\ta\t2\nq2\ta\t1\n")
    assert read_qrels(path) == {"q1": {"a": 2, "b": 0}, "q2": {"a": 1}}
    path.write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(UserError, match=r"test\.tsv has no judgements"):
        read_qrels(path)
    with pytest.raises(UserError, match=r"cannot read .*missing: No such file"):
        read_qrels(tmp_path / "missing")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        read_qrels(tmp_path)


def test_grades():
    assert [grade_of("x:1", "grade", value) for value in (1, "2", "1.0", 3.0, True, -1)] == [1, 2, 1, 3, 1, -1]
    assert grade_of("x:1", "grade", "1e6") == 1_000_000
    for value in (None, "", "x", 0.5, "nan", "inf", [1]):
        with pytest.raises(UserError, match=r'^x:1: "grade" must be a whole number'):
            grade_of("x:1", "grade", value)


@pytest.mark.parametrize("value", [1_000_001, "1700000000", -2_000_000, "3e9"])
def test_a_time_is_no_grade(value):
    with pytest.raises(UserError, match=r'^x:7: "grade" is .*, and a grade of relevance is at most 1,000,000'):
        grade_of("x:7", "grade", value)


@pytest.mark.parametrize("text", ["q\u00a01\tRapport n\u00a0:1\t1\n", "q\u00a01 \t 0\tRapport n\u00a0:1 \t1\n"])
def test_blanks_within_an_id_stay_and_those_around_it_go(tmp_path, text):
    path = tmp_path / "test.tsv"
    path.write_text(text)
    assert read_qrels(path) == {"q\u00a01": {"Rapport n\u00a0:1": 1}}
    path.write_text("q\u00a01 d\u2003 1\n")  # without tabs blanks part columns, and no other space does
    assert read_qrels(path) == {"q\u00a01": {"d\u2003": 1}}
