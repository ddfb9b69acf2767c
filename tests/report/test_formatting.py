import pytest

from embfit.report.formatting import (
    breakable,
    count,
    cut_at_word,
    duration,
    interval,
    metric_label,
    plain,
    probability,
    signed,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.05123, "+0.0512"), (-0.0087, "−0.0087"), (0.0, "0.0000"), (-0.00001, "0.0000"), (0.00001, "0.0000")],
)
def test_a_difference_has_a_sign_unless_it_is_zero(value: float, text: str) -> None:
    assert signed(value) == text


@pytest.mark.parametrize(
    ("p", "text"), [(1.0, "1"), (0.5612, "0.56"), (0.0123, "0.012"), (1 / 10_001, "0.0001"), (1e-5, "below 0.0001")]
)
def test_probabilities(p: float, text: str) -> None:
    assert probability(p) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (12.4, "12 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7_500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "cut"),
    [("one two", "one two"), ("one two three", "one …"), (" " * 9 + "x", " …"), ("a" * 9, "a" * 7 + " …")],
)
def test_texts_are_cut_at_words(text: str, cut: str) -> None:
    assert cut_at_word(text, 7) == cut


def test_numbers_and_names() -> None:
    assert (plain(0.64512), interval((-0.01, 0.02), 3)) == ("0.6451", "−0.010 to +0.020")
    assert interval(None) == "–"  # too few queries
    assert (count(1, "query", "queries"), count(1391, "query", "queries"), count(2, "value")) == (
        "1 query",
        "1,391 queries",
        "2 values",
    )
    assert [metric_label(name) for name in ("ndcg@10", "mrr@5", "recall@100", "precision@1", "map@10")] == [
        "nDCG@10",
        "MRR@5",
        "Recall@100",
        "Precision@1",
        "MAP@10",
    ]


def test_long_names_may_go_on_in_the_next_line() -> None:
    assert breakable("loss.dims_per <b> conf/a.yaml:3") == "loss.<wbr>dims_<wbr>per &lt;b&gt; conf/<wbr>a.<wbr>yaml:3"
