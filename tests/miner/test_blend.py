"""Blends: shares, the focus, each text once, and what a wrong blend is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from embfit.errors import ConfigError
from embfit.miner import BlendMiner, BM25Miner, DenseMiner, RandomMiner, RunFileMiner, closest_examples
from embfit.miner import examples as examples_module
from embfit.miner.blend import mistakes
from embfit.miner.candidates import Candidates, CandidateSource, Propose, ranks_of
from embfit.miner.examples import TrainingQueries, training_examples
from embfit.miner.miner import RankedMiner
from embfit.model import Encoder
from embfit.ragged import Ragged
from embfit.records import Collection
from embfit.store import Store
from tests.conftest import make_collection

QUERIES, DOCUMENTS = 40, 80


@pytest.fixture
def collection() -> Collection:
    """Forty queries over eighty documents; query i is answered by document i."""
    documents = {f"d{row}": f"document {row}" for row in range(DOCUMENTS)}
    queries = {f"q{row:02}": f"query {row}" for row in range(QUERIES)}
    return make_collection(documents, queries, {"train": {f"q{row:02}": {f"d{row}": 1} for row in range(QUERIES)}})


@dataclass(frozen=True)
class Given(RankedMiner):
    """Ranks `first`, `first` + 1, …, with the positive after as many of them as the query's number modulo 10."""

    name: str = "given"
    first: int = 40

    def source(self, collection: Collection, encoder: Encoder, store: Store) -> CandidateSource:
        def prepare(examples: TrainingQueries) -> Propose:
            def propose(part: TrainingQueries) -> Candidates:
                ASKED[self.name] += len(part)
                rows = np.tile(np.arange(self.first, self.first + 20), (len(part), 1))
                scores = np.tile(np.linspace(1.0, 0.05, 20, dtype=np.float32), (len(part), 1))
                wrong = part.queries[part.positives.owners] % 10
                positives = (1.0 - 0.05 * wrong + 0.025).astype(np.float32)
                return Candidates(self.name, rows, ranks_of(rows), scores, positives, np.zeros(0, np.float32))

            return propose

        return CandidateSource(self.name, {"first": self.first}, prepare)


ASKED: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ASKED.clear()


def test_shares_are_kept_over_all_queries(collection: Collection, store: Store, tiny_encoder: Encoder) -> None:
    sources = {"a": Given(4, name="a"), "b": Given(4, name="b", first=45), "c": RandomMiner(4)}
    blend = BlendMiner(sources, {"a": 0.6, "b": 0.3, "c": 0.1}, negatives=4)
    rows = blend.mine(collection, tiny_encoder, store).rows
    counted = Counter(name for names in rows["negative_sources"] for name in names)
    assert counted == {"a": 96, "b": 48, "c": 16}  # of 160
    for negatives in rows["negatives"]:
        assert len(negatives) == len(set(negatives)) == 4  # a and b rank the same documents


def test_what_a_source_took_before_is_not_taken_again(
    collection: Collection, store: Store, tiny_encoder: Encoder
) -> None:
    blend = BlendMiner({"a": Given(4, name="a"), "b": Given(4, name="b")}, {"a": 0.5, "b": 0.5}, negatives=4)
    training_set = blend.mine(collection, tiny_encoder, store)
    assert training_set.rows["negatives"][0] == [40, 41, 42, 43]
    assert training_set.rows["negative_sources"][0] == ["a", "a", "b", "b"]
    assert training_set.rows["negative_ranks"][0] == [1, 2, 3, 4]
    assert training_set.facts["removed"]["b.other_source"] == 2 * QUERIES


def test_two_sources_of_one_kind_are_told_apart(collection: Collection, store: Store, tiny_encoder: Encoder) -> None:
    """Both rank for themselves under one name: `near` from document 40 on, `far` from 42."""
    sources = {"near": Given(4, name="dense"), "far": Given(4, name="dense", first=42, min_score=0.9)}
    training_set = BlendMiner(sources, {"near": 0.5, "far": 0.5}, negatives=4).mine(collection, tiny_encoder, store)
    assert training_set.rows["negatives"][0] == [40, 41, 42, 43]
    assert training_set.rows["negative_sources"][0] == ["near", "near", "far", "far"]
    assert training_set.rows["positive_scores"][0] == pytest.approx([1.025])
    facts = training_set.facts
    assert facts["by_source"] == {name: {"negatives": 2 * QUERIES, "queries": QUERIES} for name in ("near", "far")}
    assert (facts["removed"]["far.min_score"], facts["removed"]["far.other_source"]) == (17 * QUERIES, 0)
    assert [sum(facts["scores"][name]["negatives"]) for name in ("near", "far")] == [2 * QUERIES] * 2
    assert facts["scored_by"] == "near"


def test_examples_are_compared_by_the_first_source_alone(
    collection: Collection, store: Store, tiny_encoder: Encoder
) -> None:
    """The first source gives none, so what the second one's score is must not be held to the first one's positives."""
    sources = {"a": Given(4, name="a", max_score=-1.0), "b": Given(4, name="b")}
    training_set = BlendMiner(sources, {"a": 0.5, "b": 0.5}, negatives=4).mine(collection, tiny_encoder, store)
    assert "a" not in training_set.facts["scores"]
    assert [example["query"]["id"] for example in closest_examples(training_set, 2)] == ["q00", "q01"]  # not q09, q19


def test_the_focus_goes_to_the_most_mistaken_queries(
    collection: Collection, store: Store, tiny_encoder: Encoder
) -> None:
    """Queries 9, 19, 29 and 39 have nine wrong documents above their positive: they are a tenth of all."""
    sources = {"a": Given(4, name="a"), "b": Given(4, name="b", first=30)}
    blend = BlendMiner(sources, {"a": 0.9, "b": 0.1}, negatives=4, focus="b")
    rows = blend.mine(collection, tiny_encoder, store).rows
    focused = [query for query, names in zip(rows["query"], rows["negative_sources"], strict=True) if "b" in names]
    assert focused == [9, 19, 29, 39]
    assert ASKED == {"a": QUERIES, "b": 4}
    assert rows["negative_sources"][9] == ["b"] * 4
    assert rows["negatives"][9] == [30, 31, 32, 33]
    assert rows["positive_scores"][9] == pytest.approx([0.575])  # the first source's


def test_mistakes_by_hand(collection: Collection, store: Store, tiny_encoder: Encoder) -> None:
    examples = training_examples(collection)
    found = Given(name="a").source(collection, tiny_encoder, store).prepare(examples)(examples)
    assert mistakes(examples, found, collection.document_copies).tolist() == [row % 10 for row in range(QUERIES)]
    lost = replace(found, positive_scores=np.full_like(found.positive_scores, np.nan))  # as of a file that ranks none
    assert mistakes(examples, lost, collection.document_copies).tolist() == [20] * QUERIES


def test_a_relevant_document_is_no_mistake_nor_is_its_copy() -> None:
    nothing = Ragged(np.zeros(0, np.int64), np.zeros(2, np.int64))
    examples = TrainingQueries(np.array([0]), Ragged.of([[41, 7]]), nothing, nothing)
    rows, scores = np.array([[40, 41, 42, -1]]), np.array([[0.9, 0.8, 0.7, 0.0]], np.float32)
    found = Candidates("a", rows, ranks_of(rows), scores, np.array([0.8, 0.65], np.float32), np.zeros(0, np.float32))
    copies = np.arange(DOCUMENTS)
    assert mistakes(examples, found, copies).tolist() == [2]  # documents 40 and 42
    copies[42] = 7
    assert mistakes(examples, found, copies).tolist() == [1]


def test_the_query_itself_is_no_mistake() -> None:
    nothing = Ragged(np.zeros(0, np.int64), np.zeros(2, np.int64))
    examples = TrainingQueries(np.array([0]), Ragged.of([[41]]), nothing, Ragged.of([[40]]))
    rows, scores = np.array([[40, 42, 41]]), np.array([[1.0, 0.9, 0.8]], np.float32)
    found = Candidates("a", rows, ranks_of(rows), scores, np.array([0.8], np.float32), np.zeros(0, np.float32))
    copies = np.arange(DOCUMENTS)
    assert mistakes(examples, found, copies).tolist() == [1]  # document 42
    copies[42] = 40
    assert mistakes(examples, found, copies).tolist() == [0]


def test_a_shortfall_is_not_filled_by_another(collection: Collection, store: Store, tiny_encoder: Encoder) -> None:
    blend = BlendMiner(
        {"a": Given(4, name="a"), "b": Given(1, name="b", first=50)}, {"a": 0.25, "b": 0.75}, negatives=4
    )
    training_set = blend.mine(collection, tiny_encoder, store)
    assert training_set.rows["negative_sources"][0] == ["a", "b"]  # b gives at most its own one
    assert training_set.facts["short"] == QUERIES


def test_a_focus_without_a_share_of_a_block_is_not_asked(
    small_collection: Collection, store: Store, tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of 2 queries' 4 negatives rounds to none."""
    monkeypatch.setattr(examples_module, "BLOCK", 2)
    run = tmp_path / "run.trec"
    run.write_text("".join(f"q{row} Q0 d{(row + 1) % 12} 1 1.0 x\n" for row in range(8)))
    for focused in (BM25Miner(2), RunFileMiner(2, depth=3, path=str(run)), DenseMiner(2), RandomMiner(2)):
        sources = {"first": DenseMiner(2, relative_margin=None), "focused": focused}
        blend = BlendMiner(sources, {"first": 0.9, "focused": 0.1}, negatives=2, focus="focused")
        training_set = blend.mine(small_collection, tiny_encoder, store)
        assert training_set.facts["by_source"] == {"first": {"negatives": 16, "queries": 8}}


@pytest.mark.parametrize("other", [RandomMiner(4), Given(4, name="b")], ids=["random", "focus"])
def test_unreached_queries_are_counted_whatever_is_beside(
    other: RandomMiner | Given, collection: Collection, store: Store, tiny_encoder: Encoder
) -> None:
    """Neither draws, nor a focus that is asked nothing, say that a positive was found: `a` ranks 30 to 49."""
    focus = None if isinstance(other, RandomMiner) else "b"
    blend = BlendMiner({"a": Given(4, first=30), "b": other}, {"a": 0.999, "b": 0.001}, negatives=2, focus=focus)
    assert blend.mine(collection, tiny_encoder, store).facts["unreached"] == 30


def test_a_file_that_ranks_nothing_for_a_block_reaches_none_of_it(
    small_collection: Collection, store: Store, tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples_module, "BLOCK", 2)
    run = tmp_path / "run.trec"
    run.write_text("q0 Q0 d0 1 1.0 x\n")
    training_set = RunFileMiner(2, depth=3, path=str(run)).mine(small_collection, tiny_encoder, store)
    assert training_set.facts["unreached"] == 7


def test_judged_negatives_are_the_hardest_of_the_first_source(
    small_collection: Collection, store: Store, tiny_encoder: Encoder
) -> None:
    judged = {f"d{row}": 0 for row in range(6, 12)}
    qrels = {"train": {f"q{row}": {f"d{row}": 1, **judged} for row in range(6)}}
    collection = replace(small_collection, qrels=qrels)
    sources = {"dense": DenseMiner(12, relative_margin=None), "bm25": BM25Miner(12)}
    blend = BlendMiner(sources, {"dense": 0.5, "bm25": 0.5}, negatives=4, judged=None)
    everything = blend.mine(collection, tiny_encoder, store)
    limited = replace(blend, judged=2).mine(collection, tiny_encoder, store)
    assert (everything.facts["judged"], everything.facts["judged_unused"]) == (36, 0)
    assert (limited.facts["judged"], limited.facts["judged_unused"]) == (12, 24)
    for whole, part in zip(everything.rows, limited.rows, strict=True):
        best = sorted(zip(whole["negative_scores"], whole["negatives"], strict=True))[-2:]
        assert set(part["negatives"][:2]) == {row for _, row in best}
        assert part["negative_sources"][:2] == ["judged", "judged"]
        assert 2 < len(part["negatives"]) <= 4
        assert not set(part["negatives"][2:]) & set(whole["negatives"])  # an unused one is not mined either


def test_only_those_who_asked_are_dropped(collection: Collection, store: Store, tiny_encoder: Encoder) -> None:
    sources = {"a": Given(4, name="a", first=0), "b": Given(4, name="b", first=30, unreached="drop")}
    blend = BlendMiner(sources, {"a": 0.9, "b": 0.1}, negatives=4, focus="b")
    training_set = blend.mine(collection, tiny_encoder, store)
    assert training_set.facts["dropped"] == 3  # of 9, 19, 29 and 39, b finds the positives of the last alone, 30 to 49
    assert training_set.facts["dropped"] + len(training_set) == QUERIES


def test_real_sources_together(
    small_collection: Collection, store: Store, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    run = tmp_path / "run.trec"
    run.write_text("".join(f"q{row} Q0 d{(row + 1) % 12} 1 1.0 x\n" for row in range(8)))
    sources = {
        "dense": DenseMiner(3, relative_margin=None),
        "bm25": BM25Miner(3),
        "file": RunFileMiner(3, depth=3, path=str(run)),
        "random": RandomMiner(8),
    }
    blend = BlendMiner(sources, dict.fromkeys(sources, 0.25), negatives=8)
    rows = blend.mine(small_collection, tiny_encoder, store).rows
    counted = Counter(name for names in rows["negative_sources"] for name in names)
    assert counted["dense"] == counted["random"] == 16
    assert 0 < counted["file"] <= 8
    assert all(len(set(negatives)) == len(negatives) for negatives in rows["negatives"])
    again = BlendMiner(sources, dict.fromkeys(sources, 0.25), negatives=8).mine(small_collection, tiny_encoder, store)
    assert again.rows.to_dict() == rows.to_dict()
    assert store.built.count("negatives") == 1
    replace(blend, sources={**sources, "random": RandomMiner(8, seed=1)}).mine(small_collection, tiny_encoder, store)
    assert store.built.count("negatives") == 2


@pytest.mark.parametrize(
    "change",
    [
        {"shares": {"a": 0.25, "b": 0.75}},
        {"shares": {"b": 0.5, "a": 0.5}},
        {"focus": "b"},
        {"negatives": 3},
        {"judged": 1},
        {"seed": 1},
        {"sources": {"a": Given(4, name="a"), "b": Given(4, name="b", max_score=0.5)}},
    ],
    ids=["shares", "order", "focus", "negatives", "judged", "seed", "margin"],
)
def test_the_store_knows_the_blend(
    change: dict[str, object], collection: Collection, store: Store, tiny_encoder: Encoder
) -> None:
    blend = BlendMiner({"a": Given(4, name="a"), "b": Given(4, name="b")}, {"a": 0.5, "b": 0.5}, negatives=4)
    for one in (blend, replace(blend, **change), replace(blend, **change)):
        one.mine(collection, tiny_encoder, store)
    assert store.built.count("negatives") == 2


def test_each_source_draws_by_its_own_seed(collection: Collection, store: Store, tiny_encoder: Encoder) -> None:
    def drawn(*seeds: int) -> tuple[list[list[int]], list[list[int]]]:
        """What `a` and what `b` gave each query."""
        sources = {
            name: Given(4, name=name, sampling="uniform", seed=seed) for name, seed in zip("ab", seeds, strict=True)
        }
        rows = BlendMiner(sources, {"a": 0.5, "b": 0.5}, negatives=4).mine(collection, tiny_encoder, store).rows
        return [negatives[:2] for negatives in rows["negatives"]], [negatives[2:] for negatives in rows["negatives"]]

    first, second = drawn(0, 0)
    assert drawn(1, 0)[0] != first
    assert drawn(0, 1)[0] == first
    assert drawn(0, 1)[1] != second


@pytest.mark.parametrize(
    ("shares", "focus", "message"),
    [
        ({"a": 1.0}, None, "miner.shares names a, and miner.sources names a, b; give each source a share"),
        ({"a": 0.7, "b": 0.2}, None, r"miner.shares add up to 0.9 \(a 0.7, b 0.2\); they must add up to 1"),
        ({"a": 0.7, "b": 0.3}, "c", "miner.focus=c is not a source after the first; choose b"),
        ({"a": 0.7, "b": 0.3}, "a", "miner.focus=a is not a source after the first; choose b"),
    ],
)
def test_a_blend_that_cannot_be(shares: dict[str, float], focus: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BlendMiner({"a": Given(), "b": Given()}, shares, focus=focus)
    with pytest.raises(ConfigError, match=r"miner.sources.judged: the name is reserved for the data's own negatives"):
        BlendMiner({"judged": Given()}, {"judged": 1.0})
