"""The selection equals a loop over queries and candidates that says what it means."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from embfit.errors import ConfigError
from embfit.miner.candidates import Candidates
from embfit.miner.examples import TrainingQueries
from embfit.miner.selection import Selection, check_window
from embfit.ragged import Ragged
from embfit.records import Collection
from tests.conftest import make_collection

Mined = list[tuple[int, float, int, str]]


def naive(
    examples: TrainingQueries, candidates: Candidates, copies: np.ndarray, selection: Selection
) -> tuple[list[Mined], Mapping[str, int]]:
    """Negatives as (row, score, rank, source) by query, and how many candidates each filter removed."""
    removed: Counter[str] = Counter()
    all_mined = []
    positive_scores = np.split(candidates.positive_scores, examples.positives.offsets[1:-1])
    judged_scores = np.split(candidates.judged_scores, examples.judged.offsets[1:-1])
    for query in range(len(examples)):
        positives, judged = examples.positives.lists()[query], examples.judged.lists()[query]
        lowest = min(positive_scores[query])
        seen: set[int] = set()
        mined: Mined = [
            (int(row), float(score), 0, "judged") for row, score in zip(judged, judged_scores[query], strict=True)
        ]
        for row, rank, score in zip(
            candidates.rows[query], candidates.ranks[query], candidates.scores[query], strict=True
        ):
            if row < 0:
                continue
            text = copies[row]
            if text in copies[positives]:
                removed["positive"] += 1
            elif text in copies[judged]:
                removed["judged"] += 1
            elif text in copies[examples.own.lists()[query]]:
                removed["query_itself"] += 1
            elif text in seen:
                removed["repeated_text"] += 1
            else:
                seen.add(text)
                if rank <= selection.skip:
                    removed["skip"] += 1
                elif selection.max_score is not None and score > selection.max_score:
                    removed["max_score"] += 1
                elif selection.min_score is not None and score < selection.min_score:
                    removed["min_score"] += 1
                elif selection.absolute_margin is not None and score > lowest - selection.absolute_margin:
                    removed["absolute_margin"] += 1
                elif selection.relative_margin is not None and score > lowest - selection.relative_margin * abs(lowest):
                    removed["relative_margin"] += 1
                elif len(mined) < selection.negatives:
                    mined.append((int(row), float(score), int(rank), candidates.source))
        all_mined.append(mined)
    return all_mined, removed


def random_ragged(random: np.random.Generator, lists: int, least: int, most: int, below: int) -> Ragged:
    values = [random.choice(below, random.integers(least, most + 1), replace=False) for _ in range(lists)]
    return Ragged(np.concatenate(values).astype(np.int32), np.cumsum([0, *map(len, values)]))


def collection_of(copies: np.ndarray) -> Collection:
    """Documents of which those with one number have one text."""
    return make_collection({f"d{row}": f"text {text}" for row, text in enumerate(copies)}, {}, {})


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "selection",
    [
        Selection(3),
        Selection(2, skip=4, relative_margin=0.25),
        Selection(5, absolute_margin=0.125, max_score=0.5),
        Selection(4, skip=1, relative_margin=0.0, absolute_margin=0.25, max_score=1.0),
        Selection(6, max_score=0.75, min_score=-0.25),
        Selection(0),
    ],
)
def test_equals_a_naive_loop(selection: Selection, seed: int) -> None:
    random = np.random.default_rng(seed)
    queries, documents, depth = 40, 60, 20
    copies = np.arange(documents)
    copies[30:] = random.integers(0, documents, 30)
    copies = collection_of(copies[copies]).document_copies  # equal texts share one row
    examples = TrainingQueries(
        np.arange(queries, dtype=np.int32),
        random_ragged(random, queries, 1, 3, documents),
        random_ragged(random, queries, 0, 2, documents),
        random_ragged(random, queries, 0, 1, documents),
    )
    rows = np.stack([random.permutation(documents)[:depth] for _ in range(queries)])
    rows[random.random(rows.shape) < 0.05] = -1

    def scores(shape: int | tuple[int, ...]) -> np.ndarray:
        return (random.integers(-8, 9, shape) / 8).astype(np.float32)  # exact in float32, many at the ceiling

    ranks = np.tile(np.arange(1, depth + 1), (queries, 1))
    candidates = Candidates(
        source="test",
        rows=rows,
        ranks=ranks,
        scores=scores(rows.shape),
        positive_scores=scores(len(examples.positives.values)),
        judged_scores=scores(len(examples.judged.values)),
    )
    found = selection.select(examples, candidates, collection_of(copies), 0)
    wanted, removed = naive(examples, candidates, copies, selection)
    flat = [one for mined in wanted for one in mined]
    assert found.rows.lengths.tolist() == [len(mined) for mined in wanted]
    assert list(zip(found.rows.values, found.scores, found.ranks, found.sources, strict=True)) == flat
    assert {name: count for name, count in found.removed.items() if count} == removed


def test_judged_negatives_come_first_and_count() -> None:
    """Of three at most two, those that score highest; the third (6) is no candidate either."""
    examples = TrainingQueries(
        np.array([0, 1], np.int32),
        Ragged(np.array([0, 0], np.int32), np.array([0, 1, 2])),
        Ragged(np.array([5, 6, 7, 4], np.int32), np.array([0, 1, 4])),
        Ragged(np.array([], np.int32), np.array([0, 0, 0])),
    )
    rows = np.array([[1, 5, 2], [6, 2, 3]])
    candidates = Candidates(
        source="dense",
        rows=rows,
        ranks=np.array([[1, 2, 3], [1, 2, 3]]),
        scores=np.array([[0.5, 0.4, 0.3], [0.5, 0.4, 0.3]], np.float32),
        positive_scores=np.array([0.9, 0.9], np.float32),
        judged_scores=np.array([0.4, 0.1, math.nan, 0.2], np.float32),
    )

    def found(negatives: int, judged: int | None) -> list[list[int]]:
        found = Selection(negatives, judged).select(examples, candidates, collection_of(np.arange(8)), 0)
        assert found.judged_unused == (0 if judged is None else 4 - sum(np.minimum([1, 3], judged)))
        assert [*found.ranks[found.sources == "judged"]] == [0] * int((found.sources == "judged").sum())
        return [rows.tolist() for rows in found.rows.lists()]

    assert found(2, None) == [[5, 1], [6, 7, 4]]
    assert found(2, 2) == [[5, 1], [6, 4]]
    assert found(3, 1) == [[5, 1, 2], [4, 2, 3]]
    assert found(1, 0) == [[1], [2]]


def test_a_window_too_small_is_refused() -> None:
    check_window(negatives=4, skip=6, depth=10)
    with pytest.raises(ConfigError, match=r"miner.negatives=5 exceeds the 4 ranks between miner.skip=6 and miner.dep"):
        check_window(negatives=5, skip=6, depth=10)
    with pytest.raises(ConfigError, match="exceeds the 0 ranks"):
        check_window(negatives=1, skip=10, depth=5)


def test_the_seed_is_part_of_the_key_only_where_something_is_drawn() -> None:
    assert Selection(2, seed=1).key == Selection(2, seed=2).key
    assert Selection(2, sampling="uniform", seed=1).key != Selection(2, sampling="uniform", seed=2).key
