import random

import pytest

from embfit.data.similarity import shingles, similar_pairs, similar_to, words


def jaccard(one, other):
    return len(one & other) / len(one | other)


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 1.0])
def test_all_pairs_are_found_and_no_others(similarity):
    draw = random.Random(7)
    sets = [frozenset(draw.choices("abcdefghijkl", k=draw.randint(1, 9))) for _ in range(150)]
    expected = {(b, a) for b in range(150) for a in range(b) if jaccard(sets[a], sets[b]) >= similarity}
    found = similar_pairs(sets, similarity)
    assert set(found) == expected
    assert len(found) == len(expected) > 10


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 1.0])
def test_sets_like_any_other_are_found(similarity):
    draw = random.Random(3)
    sets, others = (
        [frozenset(draw.choices("abcdefghijklmnop", k=draw.randint(1, 9))) for _ in range(80)] for _ in range(2)
    )
    expected = {place for place in range(80) if any(jaccard(sets[place], other) >= similarity for other in others)}
    assert similar_to([*sets, frozenset()], iter([*others, frozenset()]), similarity) == expected
    assert len(expected) > 3


def test_words_are_a_set():
    assert words("What's the CAT, the cat?") == {"what", "s", "the", "cat"}


def test_shingles_are_four_words():
    assert shingles("The cat, sat on  the MAT") == {"the cat sat on", "cat sat on the", "sat on the mat"}
    assert shingles("Two words") == {"two words"}
    assert jaccard(shingles("a b c d e f g h"), shingles("a b c d e f g x")) == 4 / 6
