from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from embfit.random_streams import random_stream
from embfit.records import TrainingSet
from embfit.training.batches import EpochBatches, ExampleArrays
from embfit.training.grouping import ByDocument, RandomGrouping, Topical
from tests.conftest import make_collection

DOCUMENTS = {"a": "alpha", "b": "beta", "c": "gamma", "copy of a": "alpha", "d": "delta"}  # rows 0 to 4
QUERIES = {"p": "first", "q": "second", "r": "third"}


def training_set(examples: list[tuple[int, list[int], list[int]]], relevant: dict[int, set[int]]) -> TrainingSet:
    rows = [
        {"query": query, "positives": positives, "negatives": negatives, "scores": [], "weight": 1.0, "source": "test"}
        for query, positives, negatives in examples
    ]
    known = {query: frozenset(rows) for query, rows in relevant.items()}
    return TrainingSet(make_collection(DOCUMENTS, QUERIES, {}), Dataset.from_list(rows), known)


def whole(examples: ExampleArrays) -> object:
    return examples.batch(np.arange(len(examples)), np.random.default_rng(0))


def test_labels_and_masks_by_hand() -> None:
    made = training_set([(0, [0], [2]), (1, [1], []), (2, [2], [4])], {0: {0}, 1: {1, 4}, 2: {2}})
    batch = whole(ExampleArrays(made, 8))
    assert batch.queries.tolist() == [0, 1, 2]
    assert batch.documents.tolist() == [0, 1, 2, 4]
    assert batch.relations.positives.int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert batch.relations.ignored.int().tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]  # d is relevant to q
    assert batch.pairs == 3


def test_a_copy_of_the_positive_is_the_positive() -> None:
    made = training_set([(0, [0], [2]), (1, [3], [])], {0: {0}, 1: {3}})
    batch = whole(ExampleArrays(made, 8))
    assert batch.documents.tolist() == [0, 2]  # row 3 has row 0's text
    assert batch.relations.positives.int().tolist() == [[1, 0], [1, 0]]


def test_a_mined_negative_that_is_a_copy_of_a_known_positive_is_ignored() -> None:
    batch = whole(ExampleArrays(training_set([(0, [1], [3])], {0: {0, 1}}), 8))
    assert batch.documents.tolist() == [0, 1]
    assert batch.relations.positives.int().tolist() == [[0, 1]]
    assert batch.relations.ignored.int().tolist() == [[1, 0]]


def test_a_positive_that_is_not_drawn_is_no_negative_whatever_is_called_relevant() -> None:
    examples = ExampleArrays(training_set([(0, [0, 1], []), (1, [1], [])], {}), 1)
    for seed in range(10):
        batch = examples.batch(np.arange(2), np.random.default_rng(seed))
        first = batch.relations.positives[0] | batch.relations.ignored[0]
        assert first.all()  # of documents a and b, or b alone


def test_examples_of_one_query_are_one_row() -> None:
    batch = whole(ExampleArrays(training_set([(0, [0], []), (0, [1], [])], {0: {0, 1}}), 8))
    assert batch.queries.tolist() == [0]
    assert batch.relations.positives.int().tolist() == [[1, 1]]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_examples_of_one_query_count_by_their_mean(order: list[int]) -> None:
    rows = [
        {"query": 0, "positives": [0], "negatives": [2], "scores": [3.0, 1.0], "weight": 1.0, "source": "a"},
        {"query": 0, "positives": [1], "negatives": [2], "scores": [4.0, 2.0], "weight": 2.0, "source": "b"},
    ]
    made = TrainingSet(make_collection(DOCUMENTS, QUERIES, {}), Dataset.from_list([rows[row] for row in order]), {})
    batch = whole(ExampleArrays(made, 8))
    assert batch.relations.weights.tolist() == [1.5]
    assert batch.relations.teacher.tolist() == [[3.0, 4.0, 1.5]]


def test_too_many_positives_are_drawn_anew_each_epoch() -> None:
    examples = ExampleArrays(training_set([(0, [0, 1, 2, 4], []), (1, [1], [])], {0: {0, 1, 2, 4}, 1: {1}}), 2)
    drawn = []
    for epoch in range(8):
        (batch,) = EpochBatches(examples, RandomGrouping(2, 2), seed=0, epoch=epoch)
        assert batch.relations.positives.sum(dim=1).tolist() == [2, 1]
        drawn.append(tuple(batch.documents[batch.relations.positives[0]].tolist()))
        others = {0, 1, 2, 4} - set(drawn[-1])
        in_batch = set(batch.documents.tolist())
        assert set(batch.documents[batch.relations.ignored[0]].tolist()) == others & in_batch
    assert len(set(drawn)) > 2


def many(count: int) -> ExampleArrays:
    documents = {str(row): f"text {row}" for row in range(count)}
    rows = [
        {"query": row, "positives": [row], "negatives": [], "scores": [], "weight": 1.0, "source": "test"}
        for row in range(count)
    ]
    collection = make_collection(documents, documents, {})
    return ExampleArrays(TrainingSet(collection, Dataset.from_list(rows), {}), 8)


def test_an_epoch_holds_every_example_once_in_even_batches() -> None:
    batches = EpochBatches(many(103), RandomGrouping(103, 25), seed=0, epoch=0)
    assert [len(batches[row].queries) for row in range(len(batches))] == [21, 21, 21, 20, 20]
    assert sorted(np.concatenate([batch.queries for batch in batches])) == list(range(103))


@pytest.mark.parametrize("grouping", [RandomGrouping, Topical, ByDocument])
def test_no_batch_counts_a_known_positive_or_its_copy_as_a_negative(grouping: type) -> None:
    generator = np.random.default_rng(0)
    documents = {str(row): f"text {row % 20}" for row in range(40)}  # each text twice
    relevant = {query: set(generator.choice(40, 3, replace=False).tolist()) for query in range(24)}
    rows = [
        {"query": query, "positives": [min(known)], "negatives": generator.choice(40, 2).tolist()}
        | {"scores": [], "weight": 1.0, "source": "test"}
        for query, known in relevant.items()
    ]
    collection = make_collection(documents, {str(query): f"query {query}" for query in relevant}, {})
    made = TrainingSet(collection, Dataset.from_list(rows), {q: frozenset(known) for q, known in relevant.items()})
    examples = ExampleArrays(made, 8)
    first = examples.positives.values
    of = {RandomGrouping: 24, Topical: generator.normal(size=(24, 8)).astype(np.float32), ByDocument: first}[grouping]
    for batch in EpochBatches(examples, grouping(of, 8), seed=0, epoch=1):
        assert len(set(batch.documents % 20)) == len(batch.documents)  # each text once
        for place, query in enumerate(batch.queries):
            texts = {row % 20 for row in relevant[int(query)]}
            negative = ~(batch.relations.positives[place] | batch.relations.ignored[place]).numpy()
            assert not texts & set((batch.documents[negative] % 20).tolist())


def test_order_is_a_function_of_seed_and_epoch() -> None:
    examples = many(50)

    def order(seed: int, epoch: int) -> list[list[int]]:
        return [batch.queries.tolist() for batch in EpochBatches(examples, RandomGrouping(50, 10), seed, epoch)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_a_batch_number_past_the_end() -> None:
    with pytest.raises(IndexError):
        EpochBatches(many(3), RandomGrouping(3, 2), 0, 0)[2]


def test_a_teachers_scores_by_hand() -> None:
    made = training_set([(0, [0], [2]), (1, [1], [3])], {0: {0}, 1: {1}})
    rows = made.rows.to_list()
    rows[0]["scores"] = [5.0, 1.0]
    rows[1]["scores"] = []
    scored = ExampleArrays(TrainingSet(made.collection, Dataset.from_list(rows), made.relevant), 8)
    batch = whole(scored)
    assert batch.documents.tolist() == [0, 1, 2]
    assert batch.relations.teacher.nan_to_num(-1).tolist() == [[5, -1, 1], [-1, -1, -1]]
    assert whole(ExampleArrays(made, 8)).relations.teacher is None


def test_a_score_for_each_document_or_none() -> None:
    made = training_set([(0, [0], [2])], {})
    rows = made.rows.to_list()
    rows[0]["scores"] = [5.0]
    with pytest.raises(ValueError, match="example 0 has 2 documents and 1 scores"):
        ExampleArrays(TrainingSet(made.collection, Dataset.from_list(rows), {}), 8)


def test_sources_and_weights_are_those_of_the_data() -> None:
    made = training_set([(0, [0], []), (1, [1], []), (2, [2], [])], {})
    queries = made.collection.queries.add_column("source", ["faq", "mail", "faq"])
    queries = queries.add_column("weight", ["", "0.25", "2.0"])
    examples = ExampleArrays(replace(made, collection=replace(made.collection, queries=queries)), 8)
    assert examples.sources.tolist() == [0, 1, 0]
    assert examples.weights.tolist() == [1.0, 0.25, 2.0]
    assert ExampleArrays(made, 8).sources.tolist() == [0, 0, 0]


def test_an_epochs_order_and_what_its_first_batch_draws_are_streams_of_their_own() -> None:
    order, drawn = random_stream("batches of an epoch", 7, 0), random_stream("positives of a batch", 7, 0, 0)
    assert order.integers(1 << 62, size=4).tolist() != drawn.integers(1 << 62, size=4).tolist()
    streams = {random_stream(*key).integers(1 << 62) for key in (("a", 1), ("a", 1, 0), ("a", 10), ("b", 1), ("a", 2))}
    assert len(streams) == 5
    assert random_stream("a", 1).integers(1 << 62) == random_stream("a", 1).integers(1 << 62)
