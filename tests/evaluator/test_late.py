"""Late interaction as a system: alone, over an index, over another system's shortlist, and fused with words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embfit.errors import ConfigError
from embfit.evaluator import Retrieval
from embfit.evaluator.fusion import weighted_scores
from embfit.evaluator.systems import (
    ConfiguredSystem,
    DenseSystem,
    EvaluationContext,
    LateRerankedSystem,
    LateSystem,
    ScoreFusion,
    System,
    standard,
)
from embfit.model import Encoder, EncoderTeacher, LateInteraction, Pretrained, load_teacher, save_encoder
from embfit.model.vector_scores import score_by_vectors
from embfit.records import Collection, Evaluation
from embfit.store import Store
from tests.conftest import new_late_encoder


@pytest.fixture
def late(tokenizer, tmp_path: Path) -> str:
    save_encoder(new_late_encoder(tokenizer), tmp_path / "late")
    return str(tmp_path / "late")


@pytest.fixture
def context(
    tiny_encoder: Encoder, small_collection: Collection, store: Store, tmp_path: Path, late: str
) -> EvaluationContext:
    save_encoder(tiny_encoder, tmp_path / "tiny")
    systems: dict[str, System] = {
        **standard(),
        "tuned": DenseSystem(late),
        "late": LateSystem(late),
        "late_tokens": LateSystem(late, search="tokens", format="int8"),
        "pooled": LateSystem(late, search="tokens", pool_factor=2),
        "late_reranked": LateRerankedSystem(late, of="bm25", top=3),
        "late_weighted": ScoreFusion(of=["late", "bm25"]),
    }
    evaluator = Retrieval(systems=systems)
    model = Pretrained(str(tmp_path / "tiny"), precision="fp32")
    return evaluator.context(small_collection, store, model, ("cpu",), names=["base", "late"])


def explained(evaluation: Evaluation, query: str) -> None:
    """Hold a system's shares to its scores."""
    ranked = evaluation.ranking.documents[query][:3]
    assert evaluation.explain is not None
    for (_, score), matched in zip(ranked, evaluation.explain(query, [name for name, _ in ranked]), strict=True):
        assert sum(match.share for match in matched.words) + matched.own == pytest.approx(score, abs=1e-5)


def test_over_the_whole_corpus(context: EvaluationContext, late: str) -> None:
    found, as_tuned = context.evaluation("late"), context.evaluation("tuned")
    assert found.ranking == as_tuned.ranking
    explained(found, "q10")
    assert context.evaluation("base").explain is None
    size = found.facts["index"]
    vectors = LateInteraction(late).load("cpu").embed(context.collection.document_texts(), "document").rows
    assert size["bytes"] == vectors.size * 4
    assert (size["bytes_per_token"], size["bytes_per_document"]) == (16 * 4, size["bytes"] / 12)
    one = context.evaluation("base").facts["index"]
    assert (one["bytes_per_token"], one["bytes_per_document"]) == (None, 32 * 4)
    assert 0 < one["query_ms_p50"] <= one["query_ms_p95"]


def test_over_an_index_of_tokens(context: EvaluationContext) -> None:
    exact, found = context.evaluation("late"), context.evaluation("late_tokens")
    assert found.facts["format"] == "int8"
    assert found.facts["index"]["bytes_per_token"] == 18
    for query in ("q10", "q11"):
        whole, ranked = (dict(one.ranking.documents[query]) for one in (exact, found))
        assert ranked == pytest.approx(whole, abs=0.01)
        explained(found, query)
    assert context.evaluation("pooled").explain is None
    assert context.evaluation("pooled").facts["index"]["bytes"] < found.facts["index"]["bytes"] * 2


def test_over_a_shortlist(context: EvaluationContext) -> None:
    first, whole = context.evaluation("bm25").ranking, context.evaluation("late").ranking
    found = context.evaluation("late_reranked")
    for query, ranked in first.documents.items():
        best = [name for name, _ in ranked[:3]]
        scores = dict(whole.documents[query])
        expected = sorted(best, key=lambda name: (-scores[name], name))
        reranked = [name for name, _ in found.ranking.documents[query]]
        assert reranked == [*expected, *(name for name, _ in ranked[3:])]
    assert found.facts["pairs"] == sum(min(3, len(ranked)) for ranked in first.documents.values())
    assert found.explain is not None
    ((name, score), *_) = found.ranking.documents["q10"]
    (matched,) = found.explain("q10", [name])
    assert matched.score == pytest.approx(score, abs=1e-5)


def test_fused_with_words(context: EvaluationContext) -> None:
    parts = [context.evaluation(name).ranking for name in ("late", "bm25")]
    assert context.evaluation("late_weighted").ranking == weighted_scores(parts, [0.5, 0.5], 100)


def test_the_configured_model_or_the_newest_is_taken(
    context: EvaluationContext, late: str, tmp_path: Path, small_collection: Collection, store: Store
) -> None:
    configured = LateInteraction(late, precision="fp32")
    systems: dict[str, System] = {"base": ConfiguredSystem(), "late": LateSystem(runs=str(tmp_path / "runs"))}
    own = Retrieval(systems=systems).context(small_collection, store, configured, ("cpu",), names=["base"])
    assert own.evaluation("late").ranking == own.evaluation("base").ranking == context.evaluation("late").ranking
    assert own.costs
    other = Retrieval(systems=systems).context(small_collection, store, context.model, ("cpu",))
    assert not other.costs
    with pytest.raises(ConfigError, match=r"late.path is not set, and no late-interaction model under .*runs was fine"):
        other.evaluation("late")
    run = tmp_path / "runs" / "one"
    save_encoder(LateInteraction(late).load("cpu"), run / "model")
    for name, said in (
        ("status", {"state": "done"}),
        ("report", {"data": {"corpus_sha256": small_collection.corpus_digest}}),
    ):
        (run / f"{name}.json").write_text(json.dumps(said))
    (run / "config.yaml").write_text("task: {_target_: embfit.task.finetune}\n")
    for name in ("provenance.json", "versions.json"):
        (run / name).write_text("{}")
    assert other.evaluation("late").ranking == context.evaluation("late").ranking


def test_a_model_of_one_vector_is_refused(context: EvaluationContext, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"systems.mine.path=.*tiny is a model of one vector a text; name a late"):
        LateSystem(str(tmp_path / "tiny")).evaluate("mine", context)


def test_it_teaches(context: EvaluationContext, late: str, tmp_path: Path, store: Store) -> None:
    pairs = np.array([[0, 3], [1, 3], [0, 5], [0, 3]])
    teacher = load_teacher(late, precision="fp32", device="cpu")
    assert isinstance(teacher, EncoderTeacher)
    encoder = LateInteraction(late, precision="fp32").load("cpu")
    queries = encoder.embed(context.collection.query_texts(), "query")
    documents = encoder.embed(context.collection.document_texts(), "document")
    scores = queries.scores(documents)[pairs[:, 0], pairs[:, 1]]
    np.testing.assert_allclose(teacher.score(context.collection, pairs, store), 20 * scores, atol=1e-4)
    np.testing.assert_allclose(score_by_vectors(encoder, context.collection, pairs, store), scores, atol=1e-5)
    assert teacher.fingerprint != load_teacher(str(tmp_path / "tiny"), precision="fp32", device="cpu").fingerprint
    with pytest.raises(ConfigError, match=r"miner.max_length=64 is of a query and a document together"):
        load_teacher(late, max_length=64)
