"""Every kind of system through the one seam."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from embfit.data.trec import write_run
from embfit.errors import ConfigError, UserError
from embfit.evaluator import Retrieval
from embfit.evaluator.comparison import most_changed
from embfit.evaluator.fusion import reciprocal_ranks
from embfit.evaluator.systems import (
    BM25System,
    ConfiguredSystem,
    DenseSystem,
    EvaluationContext,
    RankFusion,
    ScoreFusion,
    System,
    TrecFileSystem,
    evaluate_bm25,
    fuse_with_words,
    standard,
)
from embfit.model import Encoder, Pretrained, save_encoder
from embfit.records import Collection, Evaluation, Ranking
from embfit.store import Store
from tests.conftest import make_collection
from tests.evaluator.measured import changed, evaluate


@pytest.fixture
def context(tiny_encoder: Encoder, small_collection: Collection, store: Store, tmp_path: Path) -> EvaluationContext:
    save_encoder(tiny_encoder, tmp_path / "tiny")
    return Retrieval(dims=[8]).context(small_collection, store, Pretrained(str(tmp_path / "tiny"), precision="fp32"))


def with_systems(context: EvaluationContext, **systems: System) -> EvaluationContext:
    return changed(context, systems={**standard(), **systems})


@dataclass(frozen=True)
class Backwards:
    """A system of the kind that a pack would bring: the corpus from its end."""

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        found = [(document, float(row)) for row, document in enumerate(context.collection.document_ids)]
        return context.judge(
            name, Ranking.of({context.collection.query_ids[row]: found for row in context.rows}), {"kind": "toy"}
        )


def test_models_are_loaded_on_the_devices_of_the_bench(context: EvaluationContext) -> None:
    placed = changed(context, devices=("meta", "cpu"))
    assert (placed.encoder.device.type, placed.encoder.further_devices) == ("meta", ("cpu",))
    assert placed.on("train").encoder is placed.encoder
    fresh = changed(context)
    later, other = fresh.on("train"), fresh.on("test")
    assert later.encoder is other.encoder is fresh.encoder  # loaded once, though none had it before


def test_a_new_kind_of_system_needs_one_method(context: EvaluationContext) -> None:
    found = with_systems(context, backwards=Backwards()).evaluation("backwards")
    assert found.ranking.documents["q11"][0] == ("d11", 11.0)
    assert found.metrics["mrr@10"] == (1 + 1 / 2) / 2  # d11 is first for its query, d10 second
    assert found.facts == {"queries": 2, "left_out": 0, "kind": "toy"}
    assert isinstance(Backwards(), System)


def test_the_configured_model_is_evaluated_as_ever(context: EvaluationContext) -> None:
    expected = evaluate(Retrieval(dims=[8]), context.encoder, context.collection, context.store)
    found = context.evaluation("base")
    assert (found.metrics, found.ranking, found.dims[8].metrics) == (
        expected.metrics,
        expected.ranking,
        expected.dims[8].metrics,
    )
    assert context.evaluation("base") is found
    assert context.evaluation("bm25").ranking == evaluate_bm25(context).ranking


def test_another_model_reads_its_own_folder(context: EvaluationContext, make_encoder, tmp_path: Path) -> None:
    other = make_encoder(pooling="cls")
    save_encoder(other, tmp_path / "cls")
    found = with_systems(context, tuned=DenseSystem(path=str(tmp_path / "cls"))).evaluation("tuned")
    assert found.metrics == evaluate(Retrieval(), other, context.collection, context.store, system="x").metrics
    assert found.ranking != context.evaluation("base").ranking
    systems = {"o": DenseSystem(str(tmp_path / "cls"))}
    wide = changed(context, judging=replace(context.judging, dims=[8, 64]), systems=systems)
    assert list(wide.evaluation("o").dims) == [8]


def test_another_model_has_nothing_of_the_configured_one_but_how_it_computes(make_encoder, tmp_path: Path) -> None:
    configured = Pretrained(
        "a",
        "main",
        sha256="0" * 64,
        pooling="cls",
        query_prompt="query: ",
        document_prompt="document: ",
        max_length=99,
        normalize=False,
        attention="eager",
        precision="fp32",
    )
    path = str(tmp_path / "b")
    save_encoder(make_encoder(), tmp_path / "b")
    found = DenseSystem(path, query_prompt="q: ").choice("other", configured)
    assert found == Pretrained(path, query_prompt="q: ", attention="eager", precision="fp32")
    assert DenseSystem(path).choice("other", configured) == Pretrained(path, attention="eager", precision="fp32")


def test_a_hybrid_is_made_of_what_others_found(context: EvaluationContext) -> None:
    found = context.evaluation("hybrid")
    parts = [context.evaluation("base").ranking, context.evaluation("bm25").ranking]
    assert found.ranking == reciprocal_ranks(parts, [0.5, 0.5], 60, 100)
    one = with_systems(context, one=RankFusion(of=["base", "bm25"], weights=[0, 1])).evaluation("one")
    assert one.ranking.documents["q10"][0][0] == context.evaluation("bm25").ranking.documents["q10"][0][0]


def test_a_model_is_fused_with_words_as_the_hybrid_is(context: EvaluationContext) -> None:
    model, words = context.evaluation("base"), context.evaluation("bm25")
    assert fuse_with_words("x", model, words, context).ranking == context.evaluation("hybrid").ranking
    other = with_systems(context, hybrid=RankFusion(weights=[0.9, 0.1], k=3))
    found = fuse_with_words("x", model, words, other)
    assert found.ranking == reciprocal_ranks([model.ranking, words.ranking], [0.9, 0.1], 3, 100)
    assert found.facts["of"] == ["base", "bm25"]
    of_others = with_systems(context, hybrid=RankFusion(of=["bm25", "file"], k=3))
    assert fuse_with_words("x", model, words, of_others).ranking == context.evaluation("hybrid").ranking


def test_a_hybrid_of_itself_is_refused(context: EvaluationContext) -> None:
    round_trip = with_systems(context, a=RankFusion(of=["b"]), b=RankFusion(of=["a"]))
    with pytest.raises(ConfigError, match=r"systems.a refers to itself \(a -> b -> a\)"):
        round_trip.evaluation("a")
    tuned = with_systems(context, a=ScoreFusion(of=["a", "bm25"], weights="tuned"))
    tuned = changed(tuned, judging=replace(tuned.judging, dev_split="train"))
    with pytest.raises(ConfigError, match=r"systems.a refers to itself \(a -> a\)"):  # on the dev split
        tuned.evaluation("a")
    with pytest.raises(ConfigError, match=r"has no 'colbert'; it has base, bm25, hybrid, weighted"):
        context.evaluation("colbert")
    weighted = context.evaluation("weighted").ranking
    assert {query: set(dict(found)) for query, found in weighted.documents.items()} == {
        query: set(dict(found)) for query, found in context.evaluation("hybrid").ranking.documents.items()
    }
    with pytest.raises(ValueError, match="2 for 3 systems"):
        RankFusion(of=["a", "b", "c"], weights=[1, 2])


def test_a_file_of_another_tool_is_a_system(context: EvaluationContext, tmp_path: Path) -> None:
    run = tmp_path / "other.trec"
    write_run(run, Ranking({"q10": [("d3", 2.0), ("d10", 1.0)], "q1": [("d1", 1.0)]}), "other")
    found = with_systems(context, file=TrecFileSystem(str(run))).evaluation("file")
    assert found.per_query["mrr@10"] == {"q10": 1 / 2, "q11": 0.0}
    assert found.facts["queries_lacking"] == 1
    write_run(run, Ranking({"q1": [("d1", 1.0)]}), "other")
    with pytest.raises(UserError, match=r"none of its 1 queries is in split 'test' of small"):
        with_systems(context, file=TrecFileSystem(str(run))).evaluation("file")
    write_run(run, Ranking({"q10": [("x", 1.0)]}), "other")
    with pytest.raises(UserError, match=r"query 'q10' ranks 'x', which is not a document of small"):
        with_systems(context, file=TrecFileSystem(str(run))).evaluation("file")


def test_the_query_itself_is_left_out_of_a_file_where_queries_are_documents(
    context: EvaluationContext, tmp_path: Path
) -> None:
    collection = make_collection({"q": "one", "d": "two"}, {"q": "one"}, {"test": {"q": {"d": 1}}})
    write_run(tmp_path / "other.trec", Ranking({"q": [("q", 2.0), ("d", 1.0)]}), "other")
    for exclude_self, value in ((False, 1 / 2), (True, 1)):
        on = changed(context, collection=replace(collection, exclude_self=exclude_self))
        found = with_systems(on, file=TrecFileSystem(str(tmp_path / "other.trec"))).evaluation("file")
        assert found.metrics["mrr@10"] == value


@pytest.mark.parametrize("system", [DenseSystem(), TrecFileSystem()])
def test_a_system_without_its_path_says_how_to_give_it(context: EvaluationContext, system: System) -> None:
    with pytest.raises(ConfigError, match=r"evaluator.systems.mine.path is not set"):
        with_systems(context, mine=system).evaluation("mine")


def test_systems_are_compared_with_the_first_and_corrected_for_their_number(context: EvaluationContext) -> None:
    evaluations = [context.evaluation(name) for name in ("base", "bm25", "hybrid")]
    found = Retrieval().compare_all(evaluations)
    assert [(c.a, c.b) for c in found if c.metric == "ndcg@10" and c.subset == "all"] == [
        ("base", "bm25"),
        ("base", "hybrid"),
    ]
    alone = Retrieval().compare(evaluations[0], evaluations[2])
    assert [replace(c, p_holm=None) for c in found if c.b == "hybrid"] == alone
    assert all(c.p_holm is not None and c.p <= c.p_holm <= min(1, 2 * c.p) for c in found)
    (only,) = {c.p_holm for c in Retrieval().compare_all(evaluations[:2])}
    assert only is None


def test_p_is_corrected_over_systems_for_each_metric_by_itself() -> None:
    def named(system: str, **values: list[float]) -> Evaluation:
        queries = {metric: {f"q{row}": value for row, value in enumerate(found)} for metric, found in values.items()}
        return Evaluation(system, "test", dict.fromkeys(values, 0.0), queries, {}, Ranking({}))

    a = named("a", ndcg=[0.5] * 8, mrr=[0.5] * 8)
    b = named("b", ndcg=[0.6] * 8, mrr=[0.6] * 6 + [0.4] * 2)
    c = named("c", ndcg=[0.6] * 7 + [0.4], mrr=[0.5] * 8)
    found = Retrieval().compare_all([a, b, c])
    assert [(one.b, one.metric) for one in found] == [("b", "ndcg"), ("b", "mrr"), ("c", "ndcg"), ("c", "mrr")]
    # of 256 flips 2, 74, 18 and all are as extreme
    assert [one.p for one in found] == pytest.approx([2 / 256, 74 / 256, 18 / 256, 1], abs=0.02)
    assert [one.p_holm for one in found] == pytest.approx([4 / 256, 148 / 256, 18 / 256, 1], abs=0.04)


def test_the_queries_that_changed_most_are_listed() -> None:
    def named(system: str, values: dict[str, float]) -> Evaluation:
        return Evaluation(system, "test", {"ndcg@10": 0.0}, {"ndcg@10": values}, {}, Ranking({}))

    a = named("a", {"q1": 0.5, "q2": 0.5, "q3": 0.5, "q4": 0.5})
    b = named("b", {"q1": 1.0, "q2": 0.5, "q3": 0.25, "q4": 0.75})
    (found,) = Retrieval().changes([a, b], 1)
    assert (found["a"], found["b"], found["metric"]) == ("a", "b", "ndcg@10")
    assert found["improved"] == [{"query": "q1", "before": 0.5, "after": 1.0, "difference": 0.5}]
    assert found["worsened"] == [{"query": "q3", "before": 0.5, "after": 0.25, "difference": -0.25}]
    (everything,) = Retrieval().changes([a, b], 9)
    assert [row["query"] for row in everything["improved"]] == ["q1", "q4"]
    (worst,) = Retrieval().changes([b, a, named("c", {"q1": 0.25, "q2": 0.0, "q3": 0.25, "q4": 0.5})][::2], 2)
    assert [row["query"] for row in worst["worsened"]] == ["q1", "q2"]  # -0.75 and -0.5, before -0.25
    assert BM25System() == standard()["bm25"]
    assert ConfiguredSystem() == standard()["base"]


def test_queries_that_change_as_much_keep_their_order() -> None:
    def values(*by_query: float) -> Evaluation:
        found = {"ndcg@10": {f"q{place}": value for place, value in enumerate(by_query)}}
        return Evaluation("x", "test", {"ndcg@10": 0.5}, found, {}, Ranking({}))

    found = most_changed(values(*[0.5] * 6), values(1.0, 0.0, 1.0, 0.0, 0.0, 1.0), "ndcg@10", 2)
    assert [row["query"] for row in found["improved"]] == ["q0", "q2"]
    assert [row["query"] for row in found["worsened"]] == ["q1", "q3"]


def test_weights_are_tuned_on_the_dev_split(context: EvaluationContext) -> None:
    """BM25 finds each dev query's document first; the other system has them last, so its weight must be small."""
    systems = {"bm25": BM25System(), "backwards": Backwards(), "both": ScoreFusion(["backwards", "bm25"], "tuned")}
    judging = replace(context.judging, dev_split="train")
    tuned = changed(context, judging=judging, systems=systems).evaluation("both")
    weights = tuned.facts["weights"]
    reached = {}
    for tenths in range(11):
        given = [tenths / 10, (10 - tenths) / 10]
        fusion = ScoreFusion(["backwards", "bm25"], given)
        dev = changed(context, split="train", systems={**systems, "both": fusion})
        reached[tenths] = dev.evaluation("both").metrics["ndcg@10"]
    best = max(reached.values())
    assert len(set(reached.values())) > 1
    assert weights == min(
        ([t / 10, (10 - t) / 10] for t, value in reached.items() if value == best), key=lambda w: abs(w[0] - 0.5)
    )
    assert (tuned.facts["tuned_on"], tuned.facts["dev_ndcg@10"]) == ("train", best)
    fixed = {**systems, "both": ScoreFusion(["backwards", "bm25"], weights)}
    assert tuned.ranking == with_systems(context, **fixed).evaluation("both").ranking


def test_a_tuned_fusion_can_be_asked_for_on_the_dev_split_itself(context: EvaluationContext) -> None:
    """As a reranker's validation asks, and a tuned fusion of which it is a part."""
    fusions = {"both": ScoreFusion(["backwards", "bm25"], "tuned"), "all": ScoreFusion(["both", "bm25"], "tuned")}
    systems = {"bm25": BM25System(), "backwards": Backwards(), **fusions}
    context = changed(context, judging=replace(context.judging, dev_split="train"), systems=systems)
    dev, test = context.on("train").evaluation("both"), context.evaluation("both")
    assert dev.facts["weights"] == test.facts["weights"]
    assert context.evaluation("all").facts["tuned_on"] == "train"


@pytest.mark.parametrize(
    ("dev_split", "message"),
    [
        ("test", "'test' is a split that is reported"),
        ("other", "small has no split 'other' to tune on; its splits: dev, test, train"),
    ],
)
def test_weights_are_never_tuned_on_what_is_reported(context: EvaluationContext, dev_split: str, message: str) -> None:
    systems = {"bm25": BM25System(), "both": ScoreFusion(["bm25"], "tuned")}
    judging = replace(context.judging, dev_split=dev_split)
    with pytest.raises(UserError, match=message):
        changed(context, judging=judging, systems=systems).evaluation("both")


def test_the_formula_of_bm25_is_a_choice(context: EvaluationContext) -> None:
    plain, other = BM25System(), BM25System(k1=0.0, method="atire")
    chosen = with_systems(context, bm25=other)
    scores = [
        one.evaluation("bm25").ranking.documents["q10"][0][1] for one in (with_systems(context, bm25=plain), chosen)
    ]
    assert scores[0] != scores[1]
    again = evaluate_bm25(changed(chosen))  # what other tasks report beside a model
    assert again.ranking == chosen.evaluation("bm25").ranking
    assert again.facts["reused"]


def test_a_system_that_finds_nothing_is_warned_of_and_compared_with_none(
    context: EvaluationContext, caplog: pytest.LogCaptureFixture
) -> None:
    @dataclass(frozen=True)
    class Silent:
        def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
            return context.judge(name, Ranking({}))

    bench = with_systems(context, silent=Silent())
    silent, base = bench.evaluation("silent"), bench.evaluation("base")
    assert caplog.messages[0] == (
        "silent finds no document for any of the 2 queries of test, so it cannot work on this data and is compared "
        "with no other system"
    )
    assert (silent.metrics["ndcg@10"], silent.facts["queries_without_result"]) == (0.0, 2)
    retrieval = Retrieval()
    assert retrieval.compare(silent, base) == []
    assert retrieval.compare_all([base, silent]) == []
    assert {found.b for found in retrieval.compare_all([base, silent, bench.evaluation("bm25")])} == {"bm25"}
