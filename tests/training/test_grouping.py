from __future__ import annotations

import numpy as np
import pytest

from embfit.training import grouping as module
from embfit.training.grouping import ByDocument, BySource, Grouping, RandomGrouping, Topical

SOURCES = np.array([0] * 50 + [1] * 7 + [2] * 46)


def topics(count: int, of: int, dims: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around `count` directions, `of` each, and the topic of each."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(count, dims))
    vectors = np.repeat(centres, of, axis=0) + 0.1 * generator.normal(size=(count * of, dims))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.repeat(np.arange(count), of)


DOCUMENTS = np.random.default_rng(1).permutation(np.arange(103) // 4 + 1000)  # four queries for each
GROUPINGS = {
    "random": RandomGrouping(103, 25),
    "by_document": ByDocument(DOCUMENTS, 25),
    "by_source": BySource(SOURCES, 25),
    "topical": Topical(topics(103, 1)[0], 25),
}


@pytest.mark.parametrize("grouping", GROUPINGS.values(), ids=GROUPINGS)
def test_an_epoch_holds_every_example_once_in_as_many_batches_as_it_says(grouping: Grouping) -> None:
    batches = grouping.draw(np.random.default_rng(0))
    assert len(batches) == len(grouping)
    assert sorted(np.concatenate(batches)) == list(range(103))


@pytest.mark.parametrize("grouping", GROUPINGS.values(), ids=GROUPINGS)
def test_batches_are_a_function_of_the_generator(grouping: Grouping) -> None:
    def draw(seed: tuple[int, int]) -> list[list[int]]:
        return [batch.tolist() for batch in grouping.draw(np.random.default_rng(seed))]

    assert draw((0, 0)) == draw((0, 0))
    assert draw((0, 0)) != draw((0, 1))


def test_batches_are_of_nearly_equal_size() -> None:
    for name in ("random", "by_document", "topical"):
        sizes = sorted(len(batch) for batch in GROUPINGS[name].draw(np.random.default_rng(0)))
        assert sizes == [20, 20, 21, 21, 21]
    assert sorted(len(batch) for batch in GROUPINGS["by_source"].draw(np.random.default_rng(0))) == [7, 23, 23, 25, 25]


def test_queries_of_a_document_share_a_batch() -> None:
    batches = GROUPINGS["by_document"].draw(np.random.default_rng(0))
    kinds = [len(set(DOCUMENTS[batch].tolist())) for batch in batches]
    assert sum(kinds) <= 26 + 4  # documents, and one more at each border
    assert max(kinds) <= 7


def test_a_batch_has_one_source() -> None:
    batches = BySource(SOURCES, 25).draw(np.random.default_rng(0))
    assert all(len(set(SOURCES[batch])) == 1 for batch in batches)
    assert len({int(SOURCES[batch[0]]) for batch in batches}) == 3


def test_a_source_is_shuffled_anew() -> None:
    drawn = [BySource(SOURCES, 25).draw(np.random.default_rng(seed)) for seed in range(2)]
    first, second = ({frozenset(batch.tolist()) for batch in batches} for batches in drawn)
    assert first & second == {frozenset(range(50, 57))}  # the small source's only batch


def test_near_queries_share_a_batch() -> None:
    vectors, topic = topics(count=32, of=8)

    def together(grouping: Grouping) -> float:
        """The share of a batch's pairs that have one topic."""
        shares = [
            (topic[batch][:, None] == topic[batch]).mean() for batch in grouping.draw(np.random.default_rng((1, 2)))
        ]
        return float(np.mean(shares))

    assert together(RandomGrouping(256, 16)) == pytest.approx(1 / 16, abs=0.04)  # the rows themselves, and chance
    assert together(Topical(vectors, 16)) > 0.35  # two whole topics in each batch would be 0.5


def test_the_same_batches_whatever_sums_first(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = topics(count=32, of=8)
    expected = [batch.tolist() for batch in Topical(vectors, 16).draw(np.random.default_rng(0))]
    monkeypatch.setattr(module, "BLOCK", 7)
    monkeypatch.setattr(module, "EXACT", 0)  # double precision
    assert [batch.tolist() for batch in Topical(vectors, 16).draw(np.random.default_rng(0))] == expected


def test_queries_that_are_all_alike() -> None:
    batches = Topical(np.ones((9, 4), np.float32), 4).draw(np.random.default_rng(0))
    assert sorted(len(batch) for batch in batches) == [3, 3, 3]


def test_digests_tell_groupings_apart() -> None:
    digests = {
        grouping.digest for grouping in (*GROUPINGS.values(), RandomGrouping(103, 24), Topical(topics(103, 1)[0], 24))
    }
    assert len(digests) == 6
    assert BySource(SOURCES[::-1], 25).digest not in digests
