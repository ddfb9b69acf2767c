import pyarrow as pa
import pyarrow.parquet
import pytest

from embfit.data import Pairs
from embfit.errors import ConfigError, UserError
from tests.data.conftest import write_jsonl

WHOLE = {"dev_share": 0.0, "test_share": 0.0}  # keep all rows in train


def texts(collection):
    return dict(zip(collection.document_ids, collection.document_texts(), strict=True))


def test_the_formats_say_the_same(tmp_path, store):
    rows = [("how far?", "a mile"), ("how long?", "an hour, at most"), ("how far?", "two steps")]
    write_jsonl(tmp_path / "a.jsonl", [{"query": query, "positive": positive} for query, positive in rows])
    (tmp_path / "a.csv").write_text(
        'positive,query\na mile,how far?\n"an hour, at most",how long?\ntwo steps,how far?\n'
    )
    (tmp_path / "a.tsv").write_text("query\tpositive\n" + "".join(f"{query}\t{positive}\n" for query, positive in rows))
    table = pa.table({"query": [query for query, _ in rows], "positive": [positive for _, positive in rows]})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    for suffix in ("jsonl", "csv", "tsv", "parquet"):
        collection = Pairs(str(tmp_path / f"a.{suffix}"), **WHOLE).load(store)
        assert collection.name == "a"
        assert texts(collection) == {"d1": "a mile", "d2": "an hour, at most", "d3": "two steps"}
        assert list(collection.query_texts()) == ["how far?", "how long?"]
        assert collection.qrels == {"train": {"q1": {"d1": 1, "d3": 1}, "q2": {"d2": 1}}}


def test_all_columns(tmp_path, store):
    path = tmp_path / "faq.jsonl"
    up = {"q": "up?", "qid": 7}
    rows = [
        {
            **up,
            "a": ["north", "top"],
            "aid": ["n", "t"],
            "head": "Map",
            "hard": ["south", ""],
            "alt": "east",
            "grade": 2,
        },
        {"q": "down?", "qid": 8, "a": "south", "aid": "s", "head": None, "hard": None, "grade": 1},
        {**up, "a": "south", "aid": "s", "head": "", "hard": ["top"], "alt": "", "grade": 0},
    ]
    write_jsonl(path, rows)
    columns = {
        "query": "q",
        "query_id": "qid",
        "positive": "a",
        "document_id": "aid",
        "title": "head",
        "label": "grade",
    }
    collection = Pairs(str(path), **columns, negatives=["hard", "alt"], **WHOLE).load(store)
    assert texts(collection) == {"n": "Map north", "t": "Map top", "s": "south", "d1": "east"}
    assert collection.qrels["train"] == {"7": {"n": 2, "t": 2, "s": 0, "d1": 0}, "8": {"s": 1}}
    facts = collection.facts
    assert (facts["rows"], facts["rows_without_text_left_out"], facts["given_negatives"]) == (3, 0, 3)
    assert (facts["train_pairs"], facts["train_not_relevant"]) == (3, 2)


def test_columns_that_nobody_asked_for_are_named_once(tmp_path, store, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"query": "x", "positive": "good", "lang": "en"}, {"query": "y", "positive": "better", "n": 2}])
    assert len(Pairs(str(path), **WHOLE).load(store).qrels["train"]) == 2
    assert [record.getMessage().split(": ")[1:] for record in caplog.records if "not read" in record.getMessage()] == [
        ["these columns are not read", "lang, n"]
    ]


def test_negatives_under_that_name_are_read_unasked(tmp_path, store, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"query": "x", "positive": "good", "negatives": ["bad"], "label": 1, "lang": "en"}])
    assert Pairs(str(path), **WHOLE).load(store).qrels["train"] == {"q1": {"d1": 1, "d2": 0}}
    assert "a.jsonl: these columns are not read: label, lang" in caplog.text
    assert Pairs(str(path), negatives=[], **WHOLE).load(store).qrels["train"] == {"q1": {"d1": 1}}


def test_a_negative_that_is_a_positive_of_the_query_is_none(tmp_path, store):
    path = tmp_path / "a.csv"
    path.write_text("query,positive,negative\nx,good,also good\nx,also good,bad\n")
    collection = Pairs(str(path), negatives="negative", **WHOLE).load(store)
    assert texts(collection) == {"d1": "good", "d2": "also good", "d3": "bad"}
    assert collection.qrels["train"] == {"q1": {"d1": 1, "d2": 1, "d3": 0}}


def test_equal_texts_under_several_ids_are_the_first(tmp_path, store):
    path = tmp_path / "a.csv"
    path.write_text("query,positive,id\nx,same,b\ny,same,a\nz,other,c\n")
    collection = Pairs(str(path), document_id="id", **WHOLE).load(store)
    assert collection.qrels["train"] == {"q1": {"b": 1}, "q2": {"b": 1}, "q3": {"c": 1}}
    assert collection.document_ids == ["b", "c"]


def test_numbers_keep_clear_of_given_ids(tmp_path, store):
    path = tmp_path / "a.csv"
    path.write_text("query,positive,negative,id\nx,one,two,d1\ny,three,four,d3\n")
    collection = Pairs(str(path), document_id="id", negatives="negative", **WHOLE).load(store)
    assert texts(collection) == {"d1": "one", "d3": "three", "d2": "two", "d4": "four"}


def test_rows_without_text_are_counted(tmp_path, store):
    path = tmp_path / "a.csv"
    path.write_text('query,positive\nx,one\n"",two\ny," "\n')
    collection = Pairs(str(path), **WHOLE).load(store)
    assert (collection.query_ids, collection.document_ids) == (["q1"], ["d1"])
    assert collection.facts["rows_without_text_left_out"] == 2


def test_a_file_per_split(tmp_path, store):
    (tmp_path / "a.csv").write_text("query,positive\n" + "".join(f"question {n},answer {n}\n" for n in range(20)))
    (tmp_path / "b.csv").write_text("query,positive\nQuestion  3,answer 50\nanother,answer 4\n")
    paths = {"train": str(tmp_path / "a.csv"), "test": str(tmp_path / "b.csv")}
    collection = Pairs(paths, dev_share=0.1).load(store)
    facts = collection.facts
    assert [facts[f"{split}_queries"] for split in ("train", "dev", "test")] == [17, 2, 2]
    assert facts["held_out"] == "dev"
    assert (facts["leaked_queries_removed"], facts["leaked_pairs_removed"]) == (1, 0)
    assert facts["test_queries_seen_in_train"] == ("q5" in collection.qrels["train"])


@pytest.mark.parametrize("name", ["dev", "validation", "valid", "val"])
def test_a_validation_file_is_the_dev_split(tmp_path, store, name):
    (tmp_path / "a.csv").write_text("query,positive\n" + "".join(f"question {n},answer {n}\n" for n in range(20)))
    (tmp_path / "b.csv").write_text("query,positive\nanother,answer 40\n")
    collection = Pairs({"train": str(tmp_path / "a.csv"), name: str(tmp_path / "b.csv")}, test_share=0).load(store)
    assert {split: len(judged) for split, judged in collection.qrels.items()} == {"train": 20, "dev": 1}


def test_an_untitled_negative_is_the_titled_document_of_its_text(tmp_path, store):
    rows = [
        {"query": "x", "positive": "a", "title": "A", "negatives": ["b", "c", "n"]},
        {"query": "y", "positive": "b", "title": "B", "negatives": ["a", "b"]},
        {"query": "z", "positive": "c", "title": "first", "negatives": ["c"]},
        {"query": "w", "positive": "c", "title": "second", "negatives": ["c"]},
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    pairs = Pairs(str(tmp_path / "a.jsonl"), negatives="negatives", title="title", dev_share=0, test_share=0)
    collection = pairs.load(store)
    assert texts(collection) == {"d1": "A a", "d2": "B b", "d3": "first c", "d4": "second c", "d5": "n"}
    assert collection.qrels["train"] == {
        "q1": {"d1": 1, "d2": 0, "d3": 0, "d5": 0},
        "q2": {"d2": 1, "d1": 0},
        "q3": {"d3": 1},
        "q4": {"d4": 1},  # of its two titles, one is relevant: the negative says nothing of the other
    }


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (
            "question,positive\nx,y\n",
            {},
            'a.csv:1: there is no column "query" (data.query); the columns are question, positive',
        ),
        (
            "query,answer\nx,y\n",
            {},
            'a.csv:1: there is no column "positive" (data.positive); the columns are query, answer',
        ),
        ("query,positive\nx,y\n", {"negatives": ["no"]}, 'a.csv:1: there is no column "no" (data.negatives); the'),
        ("query,positive,g\nx,y,0.7\n", {"label": "g"}, "a.csv:2: \"g\" must be a whole number, got '0.7'"),
        ("query,positive\nx\n", {}, "a.csv:2: expected 2 columns, got 1"),
        (
            "query,positive\n,y\n",
            {},
            "a.csv: none of the 1 rows has both a query and a positive; check data.query",
        ),
        ("", {}, "/a.csv; a row holds a query and a document that answers it"),
        ("query,positive\n", {}, "/a.csv; a row holds a query and a document that answers it"),
        ("query,positive,i\nx,y,1\nz,w,1\n", {"document_id": "i"}, 'a.csv:3: the id "1" stands for another text in an'),
    ],
)
def test_bad_input_is_named(tmp_path, store, content, settings, message):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        Pairs(str(path), **settings).load(store)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_must_match(tmp_path, store):
    write_jsonl(tmp_path / "a.jsonl", [{"query": "x", "positive": ["a", "b"], "id": ["1"]}])
    with pytest.raises(UserError, match=r'a.jsonl:1: the row has 2 "positive" and 1 "id"'):
        Pairs(str(tmp_path / "a.jsonl"), document_id="id").load(store)
    write_jsonl(tmp_path / "b.jsonl", [{"query": "x", "positive": ["a", 1.5]}])
    with pytest.raises(UserError, match=r'b.jsonl:1, "positive": "1" must be a text, got a number'):
        Pairs(str(tmp_path / "b.jsonl")).load(store)


def test_missing_and_unknown_files(tmp_path, store):
    with pytest.raises(ConfigError, match=r"data.path=FILE"):
        Pairs().load(store)
    with pytest.raises(UserError, match=r"/a\.csv: there is no such file or folder \(data\.path\)"):
        Pairs(str(tmp_path / "a.csv")).load(store)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r'a\.txt: the suffix "\.txt" is not a known format; use \.jsonl'):
        Pairs(str(tmp_path / "a.txt")).load(store)


def test_a_folder_is_no_file(tmp_path, store):
    folder = tmp_path / "small"
    folder.mkdir()
    with pytest.raises(UserError, match=rf"^{folder} is a folder; name a file: data\.path=FILE$"):
        Pairs(str(folder)).load(store)
    (folder / "corpus.jsonl").touch()
    with pytest.raises(UserError, match=rf"^{folder} is a folder; read it with data=beir data\.path={folder}$"):
        Pairs(str(folder)).load(store)


def test_a_suffix_in_upper_case(tmp_path, store):
    (tmp_path / "A.CSV").write_text("query,positive\nx,one\n")
    assert list(Pairs(str(tmp_path / "A.CSV"), **WHOLE).load(store).document_texts()) == ["one"]


def test_other_columns_are_another_entry(tmp_path, store):
    path = tmp_path / "a.csv"
    path.write_text("query,positive,other\nx,one,two\n")
    assert list(Pairs(str(path), **WHOLE).load(store).document_texts()) == ["one"]
    assert list(Pairs(str(path), positive="other", **WHOLE).load(store).document_texts()) == ["two"]


def test_documents_may_be_objects_with_text_title_and_id(tmp_path, store):
    rows = [
        {
            "query_id": "7 ",
            "query": "how far?",
            "positive": [{"docid": "a ", "title": "Miles", "text": "a mile"}, "two steps"],
            "negatives": {"_id": "n", "text": "an hour"},
        },
        {"query_id": "8", "query": "how long?", "positive": {"id": 3, "text": "two hours"}, "negatives": None},
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    collection = Pairs(str(tmp_path / "a.jsonl"), query_id="query_id", **WHOLE).load(store)
    assert texts(collection) == {"a": "Miles a mile", "d1": "two steps", "3": "two hours", "n": "an hour"}
    assert collection.qrels == {"train": {"7": {"a": 1, "d1": 1, "n": 0}, "8": {"3": 1}}}


def test_an_object_without_a_text_is_named(tmp_path, store):
    write_jsonl(tmp_path / "a.jsonl", [{"query": "how far?", "positive": [{"docid": "a", "body": "a mile"}]}])
    with pytest.raises(UserError, match=r'a\.jsonl:1, "positive" 0: there is no "text"; the record has docid, body'):
        Pairs(str(tmp_path / "a.jsonl"), **WHOLE).load(store)


def test_a_column_of_labels_that_makes_nothing_relevant_is_named(tmp_path, store):
    rows = [{"query": f"q {number}", "positive": f"d {number}", "label": -number} for number in range(6)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=r"a\.jsonl: none of the 6 pairs is relevant \(data\.label\)"):
        Pairs(str(tmp_path / "a.jsonl"), label="label").load(store)


def test_the_rows_that_were_read_are_told(tmp_path, store, caplog):
    caplog.set_level("INFO")
    write_jsonl(tmp_path / "a.jsonl", [{"query": f"q {number % 5}", "positive": f"d {number}"} for number in range(9)])
    Pairs(str(tmp_path / "a.jsonl"), **WHOLE).load(store)
    assert "rows read: 9, with 5 queries and 9 documents that differ" in caplog.messages


def test_queries_have_the_source_and_the_weight_of_their_first_row(tmp_path, store):
    rows = [
        {"query": "a", "positive": "1", "team": "faq", "w": 0.5},
        {"query": "b", "positive": "2", "team": "mail", "w": None},
        {"query": "a", "positive": "3", "team": "mail", "w": 2},
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    collection = Pairs(str(tmp_path / "a.jsonl"), source="team", weight="w", **WHOLE).load(store)
    assert collection.query_sources == ["faq", "mail"]
    assert collection.query_weights.tolist() == [0.5, 1.0]
    plain = Pairs(str(tmp_path / "a.jsonl"), **WHOLE).load(store)
    assert (plain.query_sources, plain.query_weights) == (None, None)


@pytest.mark.parametrize("weight", [0, -1, "heavy", "nan", "inf"])
def test_a_weight_is_a_number_above_zero(tmp_path, store, weight):
    write_jsonl(tmp_path / "a.jsonl", [{"query": "a", "positive": "1", "w": weight}])
    with pytest.raises(UserError, match=r'a\.jsonl:1: "w" must be a number above 0'):
        Pairs(str(tmp_path / "a.jsonl"), weight="w", **WHOLE).load(store)
