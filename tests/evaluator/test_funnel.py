import numpy as np
import pytest

from embfit.evaluator.funnel import measure_funnel
from embfit.evaluator.judging import FunnelSettings
from embfit.index.protocol import Hits
from embfit.vectors import Vectors

# Whole, each query is its answer. Cut to one dimension, answers tie with the documents before them.
DOCUMENTS = Vectors(np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0], [-0.6, 0.8]], np.float32))
QUERIES = Vectors(np.array([[0.6, 0.8], [-0.6, 0.8]], np.float32))
RIGHT = [1, 3]


def reciprocal_rank(hits: Hits) -> float:
    """Mean over the queries."""
    return float(np.mean([1 / (1 + row.tolist().index(right)) for row, right in zip(hits[1], RIGHT, strict=True)]))


def test_quality_bytes_and_the_cheapest_that_keeps_it() -> None:
    found = measure_funnel(
        QUERIES, DOCUMENTS, [1], FunnelSettings([2, 9], ["float32", "binary"], 0.99), 4, "mrr@4", reciprocal_rank
    )
    table = {(one.dims, one.format, one.shortlist): (one.value, one.bytes_per_document) for one in found.settings}
    assert table == {
        (2, "float32", None): (1.0, 8),
        (2, "binary", None): (1.0, 1),
        (2, "binary", 2): (1.0, 1),
        (2, "binary", 4): (1.0, 1),  # a shortlist of nine is all four
        (1, "float32", None): (0.5, 4),
        (1, "float32", 2): (1.0, 4),
        (1, "float32", 4): (1.0, 4),
        (1, "binary", None): (0.5, 1),
        (1, "binary", 2): (1.0, 1),
        (1, "binary", 4): (1.0, 1),
    }
    assert (found.metric, found.kept, found.cheapest.bytes_per_document) == ("mrr@4", 0.99, 1)


def test_a_shortlist_mends_what_small_vectors_miss() -> None:
    random = np.random.default_rng(0)
    documents = random.normal(size=(400, 32)).astype(np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    queries = documents[:40] + 0.1 * random.normal(size=(40, 32)).astype(np.float32)

    def value(hits: Hits) -> float:
        return float(np.mean([row[0] == query for query, row in enumerate(hits[1])]))

    found = measure_funnel(
        Vectors(queries),
        Vectors(documents),
        [4, 16],
        FunnelSettings([10, 400], ["float32", "int8"], 1.0),
        5,
        "hits@1",
        value,
    )
    table = {(one.dims, one.format, one.shortlist): one for one in found.settings}
    whole = table[32, "float32", None]
    assert found.settings[0] == whole
    assert whole.share == 1.0
    assert table[4, "float32", None].value < table[4, "float32", 10].value <= whole.value
    assert table[4, "float32", 400].value == table[4, "int8", 400].value == whole.value  # all documents ranked anew
    assert table[4, "int8", 10].share == pytest.approx(table[4, "int8", 10].value / whole.value)
    assert (found.cheapest.dims, found.cheapest.format, found.cheapest.bytes_per_document) == (4, "int8", 4)
    assert all(one.milliseconds > 0 for one in found.settings)


def test_what_is_kept_is_a_share_of_what_whole_vectors_reach() -> None:
    def value(hits: Hits) -> float:
        return 0.4 * reciprocal_rank(hits)

    found = measure_funnel(QUERIES, DOCUMENTS, [1], FunnelSettings([4], ["float32"], 0.5), 4, "mrr@4", value)
    assert [(one.dims, one.value, one.share) for one in found.settings[:2]] == [(2, 0.4, 1.0), (1, 0.2, 0.5)]
    assert found.cheapest.dims == 1
