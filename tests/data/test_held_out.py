import random

import pytest

from embfit.data.components import components
from embfit.data.held_out import cut_folds, hold_out, hold_out_seen, sample


def test_components_follow_bonds():
    bonds = {"a": [1], "b": [2], "c": [1, 3], "d": [], "e": [3], "f": [2]}
    assert components(bonds) == [["a", "c", "e"], ["b", "f"], ["d"]]
    assert components({}) == []


def test_a_long_chain_is_one_component():
    chain = {n: [n, n + 1] for n in range(100_000)}
    assert [len(group) for group in components(chain)] == [100_000]


def test_shares_are_filled_and_nothing_is_on_two_sides():
    draw = random.Random(1)
    bonds = {f"q{n}": {draw.randrange(900), draw.randrange(900)} for n in range(400)}
    judged = {query: {f"d{bond}": 1 for bond in sorted(found)} for query, found in bonds.items()}
    singles = {f"s{n}": {1000 + n} for n in range(600)}
    judged |= {query: {f"d{bond}": 1 for bond in found} for query, found in singles.items()}
    cut = hold_out(judged, bonds | singles, {"test": 0.2, "dev": 0.1}, seed=0)
    assert {split: len(found) for split, found in cut.items()} == {"train": 700, "test": 200, "dev": 100}
    sides = [{document for found in cut[split].values() for document in found} for split in cut]
    assert sum(map(len, sides)) == len(set.union(*sides))  # none of them is on two
    assert {query for found in cut.values() for query in found} == set(judged)
    assert list(cut["train"]) == [query for query in judged if query in cut["train"]]  # order is kept


def test_the_seed_decides_and_the_order_of_the_data_does_not():
    bonds = {f"q{n}": [n // 2] for n in range(100)}
    judged = {query: {"d": 1} for query in bonds}
    cut = hold_out(judged, bonds, {"test": 0.1}, seed=3)
    backwards = hold_out(dict(reversed(judged.items())), dict(reversed(bonds.items())), {"test": 0.1}, seed=3)
    assert set(cut["test"]) == set(backwards["test"])
    assert set(cut["test"]) != set(hold_out(judged, bonds, {"test": 0.1}, seed=4)["test"])


def test_what_would_decide_a_split_stays_in_training():
    bonds = {f"q{n}": ["one document" if n < 60 else n] for n in range(1000)}
    judged = {query: {"d": 1} for query in bonds}
    for seed in range(5):
        cut = hold_out(judged, bonds, {"test": 0.5}, seed)  # 60 of 500 is more than a tenth
        assert not {f"q{n}" for n in range(60)} & set(cut["test"])
        assert len(cut["test"]) == 500
    bonds = {f"q{n}": ["one document" if n < 10 else n] for n in range(100)}
    tests = [hold_out(judged, bonds, {"test": 0.2}, seed)["test"] for seed in range(20)]
    assert {sum(f"q{n}" in test for n in range(10)) for test in tests} == {0, 10}  # ten queries are few, in any split


def test_queries_without_bonds_to_cut_stay():
    assert hold_out({"q": {"d": 0}}, {}, {"test": 0.5}, seed=0) == {"train": {"q": {"d": 0}}, "test": {}}


def test_queries_of_seen_documents_leave_one_query_to_each_document():
    draw = random.Random(2)
    documents = {f"q{n}": {draw.randrange(60), draw.randrange(60)} for n in range(100)} | {"alone": {99}, "none": set()}
    for seed in range(3):
        chosen = hold_out_seen(documents, 1000, seed)
        left = {document for query in documents.keys() - chosen for document in documents[query]}
        assert chosen
        assert all(documents[query] <= left for query in chosen)
        others = documents.keys() - chosen - {"none"}
        uses = [sum(document in documents[query] for query in others) for document in range(100)]
        assert all(any(uses[document] == 1 for document in documents[query]) for query in others)  # no more fit
        few = hold_out_seen(documents, 7, seed)
        assert len(few) == 7
        assert few < chosen
    assert hold_out_seen(documents, 7, 0) != hold_out_seen(documents, 7, 1)
    assert hold_out_seen(documents, 0, 0) == set()


def test_components_that_are_to_stay_are_not_cut():
    bonds = {f"q{n}": [n // 2] for n in range(20)}
    judged = {query: {"d": 1} for query in bonds}
    cut = hold_out(judged, bonds, {"dev": 0.9}, seed=0, staying={"q0", "q3"})
    assert set(cut["train"]) == {"q0", "q1", "q2", "q3"}
    assert len(cut["dev"]) == 16


@pytest.mark.parametrize("most", [0, 3, 99])
def test_a_sample_keeps_the_order_and_grows(most):
    judged = {f"q{n}": {"d": 1} for n in range(10)}
    drawn = sample(judged, most, seed=1)
    assert len(drawn) == min(most, 10)
    assert list(drawn) == [query for query in judged if query in drawn]
    assert set(drawn) <= set(sample(judged, most + 1, seed=1))
    assert (sample(judged, most, seed=2) == drawn) is (most in (0, 99))


def test_folds_share_no_bond_and_are_of_nearly_equal_size():
    draw = random.Random(1)
    bonds = {f"q{n}": {draw.randrange(400)} for n in range(300)}
    folds = cut_folds(bonds, 3, seed=0)
    assert folds.keys() == bonds.keys()
    held = [{bond for query, found in bonds.items() if folds[query] == fold for bond in found} for fold in range(3)]
    assert not held[0] & held[1] | held[0] & held[2] | held[1] & held[2]
    sizes = [list(folds.values()).count(fold) for fold in range(3)]
    assert max(sizes) - min(sizes) <= 1
    assert cut_folds(bonds, 3, seed=0) == folds != cut_folds(bonds, 3, seed=1)


def test_a_component_larger_than_a_fold_stays_whole():
    bonds = {"a": [1], "b": [1], "c": [1], "d": [2]}
    folds = cut_folds(bonds, 2, seed=0)
    assert folds["a"] == folds["b"] == folds["c"] != folds["d"]
