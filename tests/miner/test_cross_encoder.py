"""The cross-encoder as miner and as teacher, and rankers of folds that score what they have not been trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from embfit.errors import ConfigError, UserError
from embfit.generator import DocumentChoice
from embfit.generator.protocol import GeneratedQuery, source_documents
from embfit.generator.training_queries import with_queries
from embfit.index import index_words
from embfit.miner import BM25Miner, CrossEncoderMiner, DenseMiner, HybridMiner, NoNegatives, ScoredMiner
from embfit.model import CrossEncoder as Ranker
from embfit.model import Encoder, load_teacher, save_cross_encoder
from embfit.model.teacher import Teacher, write_assignment
from embfit.records import Collection
from embfit.store import Store
from embfit.task.generated_data import TrainingData


@pytest.fixture
def folder(tiny_ranker: Ranker, tmp_path: Path) -> str:
    save_cross_encoder(tiny_ranker, tmp_path / "ranker")
    return str(tmp_path / "ranker")


def texts(collection: Collection, query: int, documents: list[int]) -> list[tuple[str, str]]:
    (question,) = collection.query_texts([query])
    return [(question, text) for text in collection.document_texts(documents)]


def test_candidates_come_in_the_cross_encoders_order(
    small_collection: Collection, tiny_encoder: Encoder, tiny_ranker: Ranker, folder: str, store: Store
) -> None:
    miner = CrossEncoderMiner(negatives=3, depth=5, model=folder, precision="fp32", absolute_margin=None)
    found = miner.mine(small_collection, tiny_encoder, store)
    whole = DenseMiner(negatives=5, depth=5, relative_margin=None).mine(small_collection, tiny_encoder, store)
    for row, base in zip(found.rows, whole.rows, strict=True):
        others = base["negatives"]  # the first five, but for a positive among them
        scores = tiny_ranker.score(texts(small_collection, row["query"], others))
        order = np.argsort(-scores, kind="stable")[:3]
        assert row["negatives"] == [others[place] for place in order]
        np.testing.assert_allclose(row["negative_scores"], scores[order], atol=1e-5)
        assert set(row["negative_sources"]) == {"cross-encoder"}


def test_its_scores_teach(
    small_collection: Collection, tiny_encoder: Encoder, tiny_ranker: Ranker, folder: str, store: Store
) -> None:
    found = CrossEncoderMiner(negatives=2, model=folder, precision="fp32").mine(small_collection, tiny_encoder, store)
    for row in found.rows:
        expected = tiny_ranker.score(texts(small_collection, row["query"], row["positives"] + row["negatives"]))
        np.testing.assert_allclose(row["scores"], expected, atol=1e-5)
    assert found.facts["teacher_scores"] == sum(len(row["scores"]) for row in found.rows)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_negatives_score_below_the_positive(
    small_collection: Collection, tiny_encoder: Encoder, folder: str, store: Store, margin: float
) -> None:
    miner = CrossEncoderMiner(negatives=12, depth=12, model=folder, precision="fp32", absolute_margin=margin)
    found = miner.mine(small_collection, tiny_encoder, store)
    assert found.facts["removed"]["absolute_margin"] > 0
    for row in found.rows:
        assert all(score <= min(row["positive_scores"]) - margin for score in row["negative_scores"])


def test_another_source_finds_the_candidates(
    small_collection: Collection, tiny_encoder: Encoder, folder: str, store: Store
) -> None:
    words = BM25Miner(negatives=1, depth=12)
    miner = CrossEncoderMiner(negatives=12, depth=12, candidates=words, model=folder, absolute_margin=None)
    found = miner.mine(small_collection, tiny_encoder, store)
    shared = BM25Miner(negatives=12, depth=12).mine(small_collection, tiny_encoder, store)
    assert [set(row["negatives"]) for row in found.rows] == [set(row["negatives"]) for row in shared.rows]


def test_other_weights_mine_anew(
    small_collection: Collection, tiny_encoder: Encoder, tiny_ranker: Ranker, tmp_path: Path, store: Store
) -> None:
    for bias in (0.0, 0.0, 1.0):
        with torch.no_grad():
            tiny_ranker.backbone.classifier.bias.fill_(bias)
        save_cross_encoder(tiny_ranker, tmp_path / "ranker")
        CrossEncoderMiner(model=str(tmp_path / "ranker"), depth=4).mine(small_collection, tiny_encoder, store)
    assert store.built.count("negatives") == store.built.count("scores") == 2


def test_taught_leaves_the_choice_to_the_miner(
    small_collection: Collection, tiny_encoder: Encoder, tiny_ranker: Ranker, folder: str, store: Store
) -> None:
    dense = DenseMiner(negatives=3, relative_margin=None)
    found = ScoredMiner(dense, model=folder, precision="fp32").mine(small_collection, tiny_encoder, store)
    plain = dense.mine(small_collection, tiny_encoder, store)
    assert found.rows["negatives"][:] == plain.rows["negatives"][:]
    assert found.rows.column_names == plain.rows.column_names
    assert found.rows.features == plain.rows.features
    for row in found.rows:
        expected = tiny_ranker.score(texts(small_collection, row["query"], row["positives"] + row["negatives"]))
        np.testing.assert_allclose(row["scores"], expected, atol=1e-5)


def test_vectors_and_words_together_are_a_teacher(
    small_collection: Collection, tiny_encoder: Encoder, store: Store
) -> None:
    dense = DenseMiner(negatives=3, relative_margin=None)
    found = HybridMiner(dense, scale=20.0, words=0.5, language="en").mine(small_collection, tiny_encoder, store)
    plain = dense.mine(small_collection, tiny_encoder, store)
    assert found.rows["negatives"][:] == plain.rows["negatives"][:]
    index = index_words(small_collection, store, "en")
    for row in found.rows:
        [question] = small_collection.query_texts([row["query"]])
        read = [*row["positives"], *row["negatives"]]
        cosines = (
            tiny_encoder.encode([question], "query")
            @ tiny_encoder.encode(list(small_collection.document_texts(read)), "document").T
        )
        np.testing.assert_allclose(row["scores"], 20 * cosines[0] + 0.5 * index.scores(question)[read], atol=1e-4)
    assert found.facts["teacher_scores"] == 8 * 4
    assert HybridMiner(NoNegatives()).mine(small_collection, tiny_encoder, store).facts["teacher_scores"] == 8


def test_a_teacher_scores_positives_as_training_reads_them(
    small_collection: Collection, tiny_encoder: Encoder, tiny_ranker: Ranker, folder: str, store: Store
) -> None:
    made = [
        GeneratedQuery(
            f"g{row}", " ".join(document.text.split()[:3]), document, "span", provenance={"positive": "rest"}
        )
        for row, document in enumerate(source_documents(small_collection, [1, 2, 3], DocumentChoice()))
    ]
    collection = with_queries(small_collection, {}, {"train": made}, {"train": "x"})
    trained_on = TrainingData(collection, queries=made)
    dense = DenseMiner(negatives=3, relative_margin=None)
    hybrid = trained_on.mine(HybridMiner(dense, language="en"), tiny_encoder, store)
    scored = trained_on.mine(ScoredMiner(dense, model=folder, precision="fp32"), tiny_encoder, store)
    index = index_words(hybrid.collection, store, "en")
    assert hybrid.rows["positives"][:] == [[12], [13], [14]]
    for row, other in zip(hybrid.rows, scored.rows, strict=True):
        [question] = hybrid.collection.query_texts([row["query"]])
        read = [*row["positives"], *row["negatives"]]
        vectors = tiny_encoder.encode(list(hybrid.collection.document_texts(read)), "document")
        expected = 20 * tiny_encoder.encode([question], "query") @ vectors.T + index.scores(question)[read]
        np.testing.assert_allclose(row["scores"], expected[0], atol=1e-4)
        pairs = texts(scored.collection, other["query"], other["positives"] + other["negatives"])
        np.testing.assert_allclose(other["scores"], tiny_ranker.score(pairs), atol=1e-5)
    assert hybrid.facts["teacher_scores"] == scored.facts["teacher_scores"] == 3 * 4


def test_a_cross_encoder_must_be_named(small_collection: Collection, tiny_encoder: Encoder, store: Store) -> None:
    for miner in (CrossEncoderMiner(), ScoredMiner(NoNegatives())):
        with pytest.raises(ConfigError, match=r"miner\.model=FOLDER_OR_NAME"):
            miner.mine(small_collection, tiny_encoder, store)


def folds(folder: str, ranker: Ranker, texts: list[str], count: int) -> None:
    """Put rankers beside one that score 1, 2, … more; the texts are of folds 0, 1, …"""
    with torch.no_grad():
        for fold in range(count):
            ranker.backbone.classifier.bias += 1
            save_cross_encoder(ranker, Path(folder, "folds", str(fold)))
    write_assignment(Path(folder, "folds"), texts, range(len(texts)), count)


def test_a_query_is_scored_by_its_folds_ranker(
    small_collection: Collection, tiny_ranker: Ranker, folder: str, store: Store
) -> None:
    pairs = np.array([[0, 3], [1, 3], [2, 5], [0, 4]])
    plain = load_teacher(folder, precision="fp32").score(small_collection, pairs, store)
    queries = [f"{text.upper()} ?" for text in small_collection.query_texts([0, 1])]  # spelt another way
    folds(folder, tiny_ranker, queries, 2)
    teacher = load_teacher(folder, precision="fp32")
    # query 0 is of fold 0, query 1 of fold 1; query 2 was in no training
    np.testing.assert_allclose(teacher.score(small_collection, pairs, store) - plain, [1, 2, 0, 1], atol=1e-5)
    assert teacher.fingerprint != load_teacher(f"{folder}/folds/0").fingerprint


def test_the_fingerprint_says_who_scores_whom(tiny_ranker: Ranker) -> None:
    teachers = [Teacher(tiny_ranker, [tiny_ranker] * 2, {"one": 0, "other": fold}) for fold in (0, 1, 1)]
    prints = [teacher.fingerprint for teacher in teachers]
    assert prints[0] != prints[1] == prints[2]


def test_folds_that_are_not_there_are_an_error(tiny_ranker: Ranker, folder: str) -> None:
    folds(folder, tiny_ranker, ["x", "y", "z"], 2)
    with pytest.raises(UserError, match="beyond its 2 folds"):
        load_teacher(folder)
    Path(folder, "folds", "folds.json").write_text("{}")
    with pytest.raises(UserError, match=r"folds\.json: cannot be read"):
        load_teacher(folder)
    Path(folder, "folds", "folds.json").write_text('{"version": 1, "folds": 2, "queries": {}}')
    with pytest.raises(UserError, match=r"is of version 1, and this embfit reads 2; train the folds again"):
        load_teacher(folder)


def test_folds_that_were_not_all_trained_do_not_teach(tiny_ranker: Ranker, folder: str) -> None:
    folds(folder, tiny_ranker, ["x", "y", "z"], 2)
    write_assignment(Path(folder, "folds"), ["x", "y", "z"], [0, 1, 2], 3)
    with pytest.raises(UserError, match=r"the rankers of folds 2 are not there.*\(resume=RUN_DIR\)"):
        load_teacher(folder)
    Path(folder, "folds", "folds.json").unlink()
    with pytest.raises(UserError, match=r"folds\.json: cannot be read"):
        load_teacher(folder)
