from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from embfit.errors import ConfigError, UserError
from embfit.evaluator import Retrieval
from embfit.evaluator.subcorpus import subcorpus
from embfit.evaluator.systems import dense
from embfit.evaluator.validation import validate
from embfit.records import Collection, Embeddings
from embfit.store import Store
from embfit.vectors import Vectors
from tests.conftest import make_collection
from tests.evaluator.measured import evaluate, evaluate_words


class Numbers:
    """An encoder of texts that are vectors: "3 4" becomes [3, 4]. It counts the texts that it encodes."""

    def __init__(self, width: int = 2, fingerprint: str = "numbers") -> None:
        self.width = width
        self.made_by = fingerprint
        self.encoded: dict[str, int] = {"query": 0, "document": 0}

    def fingerprint(self, kind: str) -> str:
        return f"{self.made_by} of a {kind}"

    def embed(self, texts: Iterable[str], kind: str) -> Vectors:
        vectors = np.array([[float(number) for number in text.split()] for text in texts], np.float32)
        self.encoded[kind] += len(vectors)
        return Vectors(vectors)


def embed(
    encoder: Numbers, collection: Collection, kind: str, store: Store, rows: Sequence[int] | None = None
) -> Embeddings:
    texts = collection.query_texts(rows) if kind == "query" else collection.document_texts()
    return Embeddings(encoder.embed(texts, kind), "")


@pytest.fixture(autouse=True)
def numbers_are_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "embed", embed)


def collect(
    corpus: Mapping[str, str], queries: Mapping[str, str], **qrels: Mapping[str, Mapping[str, int]]
) -> Collection:
    return make_collection(corpus, queries, qrels)


CORPUS = {"x": "1 0", "y": "0.8 0.6", "z": "0 1", "y2": "0.8 0.6"}


def ranked(retriever: Retrieval, collection: Collection, store: Store) -> dict[str, list[str]]:
    found = evaluate(retriever, Numbers(), collection, store).ranking.documents
    return {query: [document for document, _ in documents] for query, documents in found.items()}


def test_documents_are_ranked_by_score_and_id(store: Store) -> None:
    collection = collect(CORPUS, {"q1": "1 0", "q2": "0 1"}, test={"q1": {"y2": 1}, "q2": {"y": 2, "x": 1}})
    evaluation = evaluate(Retrieval(), Numbers(), collection, store)
    assert evaluation.ranking.documents == {
        "q1": [("x", 1.0), ("y", pytest.approx(0.8)), ("y2", pytest.approx(0.8)), ("z", 0.0)],
        "q2": [("z", 1.0), ("y", pytest.approx(0.6)), ("y2", pytest.approx(0.6)), ("x", 0.0)],
    }
    # q1's document is third; q2's are second (grade 2) and fourth (grade 1), where first and second would be best.
    ndcg2 = (2 / np.log2(3) + 1 / np.log2(5)) / (2 + 1 / np.log2(3))
    assert evaluation.per_query["ndcg@10"] == pytest.approx({"q1": 1 / 2, "q2": ndcg2})
    assert evaluation.metrics == pytest.approx(
        {"ndcg@10": (1 / 2 + ndcg2) / 2, "mrr@10": (1 / 3 + 1 / 2) / 2, "recall@10": 1.0, "recall@100": 1.0}
    )
    assert (evaluation.system, evaluation.split, evaluation.subsets) == ("base", "test", {})
    assert {name: evaluation.facts[name] for name in ("queries", "left_out", "reused")} == {
        "queries": 2,
        "left_out": 0,
        "reused": False,
    }


def test_only_the_split_is_evaluated(store: Store) -> None:
    collection = collect(CORPUS, {"q1": "1 0", "q2": "0 1"}, test={"q1": {"x": 1}}, production={"q2": {"x": 1}})
    encoder = Numbers()
    evaluation = evaluate(Retrieval(metrics=["mrr@10"]), encoder, collection, store, split="production")
    assert (evaluation.split, evaluation.per_query) == ("production", {"mrr@10": {"q2": 1 / 4}})
    assert encoder.encoded == {"query": 1, "document": 4}


def test_queries_without_a_relevant_document_are_counted(store: Store) -> None:
    collection = collect(CORPUS, {"q1": "1 0", "q2": "0 1"}, test={"q1": {"x": 1}, "q2": {"x": 0}})
    evaluation = evaluate(Retrieval(), Numbers(), collection, store)
    assert (evaluation.facts["queries"], evaluation.facts["left_out"]) == (1, 1)
    assert evaluation.metrics["ndcg@10"] == 1.0


def test_a_split_that_does_not_exist_is_named_with_those_that_do(store: Store) -> None:
    collection = collect(CORPUS, {"q": "1 0"}, train={"q": {"x": 1}}, production={"q": {"x": 0}})
    with pytest.raises(UserError, match=r"small has no split 'test'; its splits: production, train"):
        evaluate(Retrieval(), Numbers(), collection, store)
    with pytest.raises(UserError, match=r"small has no split 'dev'"):
        validate(Retrieval().judging, Numbers(), collection)
    with pytest.raises(UserError, match=r"none of the 1 queries of split 'production' has a relevant document"):
        evaluate_words(Retrieval(split="production"), collection, store)


def test_a_second_run_reuses_the_ranking(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    collection = collect(CORPUS, {"q": "1 0"}, test={"q": {"y": 1}})
    first = evaluate(Retrieval(), Numbers(), collection, store)
    encoder = Numbers()
    with caplog.at_level("INFO"):
        again = evaluate(Retrieval(), encoder, collection, Store(store.dir))
    assert encoder.encoded == {"query": 0, "document": 0}
    assert "reusing rankings from the store" in caplog.text
    assert again.facts["reused"]
    assert (again.ranking, again.metrics, again.per_query) == (first.ranking, first.metrics, first.per_query)


@pytest.mark.parametrize(
    ("change", "queries", "corpus"),
    [
        ({"fingerprint": "other weights"}, {"q": "1 0"}, CORPUS),
        ({}, {"q": "0 1"}, CORPUS),
        ({}, {"q": "1 0"}, CORPUS | {"x": "0.9 0"}),
    ],
)
def test_other_weights_or_texts_are_evaluated_anew(
    store: Store, change: dict[str, str], queries: dict[str, str], corpus: dict[str, str]
) -> None:
    qrels = {"q": {"y": 1}}
    evaluate(Retrieval(), Numbers(), collect(CORPUS, {"q": "1 0"}, test=qrels), store)
    encoder = Numbers(**change)
    evaluate(Retrieval(), encoder, collect(corpus, queries, test=qrels), store)
    assert encoder.encoded == {"query": 1, "document": 4}


def test_other_depths_are_searched_anew_and_other_judgements_are_not(store: Store) -> None:
    evaluate(Retrieval(), Numbers(), collect(CORPUS, {"q": "1 0"}, test={"q": {"y": 1}}), store)
    shallow = Retrieval(depth=1, metrics=["mrr@1"])
    again = evaluate(shallow, Numbers(), collect(CORPUS, {"q": "1 0"}, test={"q": {"y": 1}}), store)
    assert not again.facts["reused"]
    judged = evaluate(Retrieval(), Numbers(), collect(CORPUS, {"q": "1 0"}, test={"q": {"z": 1}}), store)
    assert judged.facts["reused"]
    assert judged.metrics["mrr@10"] == 1 / 4


def test_as_many_other_queries_are_searched_anew(store: Store) -> None:
    collection = collect(CORPUS, {"q1": "1 0", "q2": "0 1"}, test={"q1": {"x": 1}}, dev={"q2": {"x": 1}})
    found = [evaluate(Retrieval(), Numbers(), collection, store, split) for split in ("test", "dev")]
    assert [one.metrics["mrr@10"] for one in found] == [1, 1 / 4]


def test_depth_cuts_the_ranking(store: Store) -> None:
    collection = collect(CORPUS, {"q": "1 0"}, test={"q": {"z": 1}})
    assert ranked(Retrieval(depth=2, metrics=["mrr@2"]), collection, store) == {"q": ["x", "y"]}


def test_the_query_itself_is_left_out_where_queries_are_documents(store: Store) -> None:
    collection = collect(CORPUS, {"x": "1 0"}, test={"x": {"y": 1}})
    retriever = Retrieval(depth=2, metrics=["mrr@2"])
    assert ranked(retriever, collection, store) == {"x": ["x", "y"]}
    assert ranked(retriever, replace(collection, exclude_self=True), store) == {"x": ["y", "y2"]}


def test_dimensions_are_cut_renormalised_and_embedded_once(store: Store) -> None:
    corpus = {"long": "0.1 0.1 0.7", "left": "0.9 0.1 0.1", "both": "0.5 0.5 0.1"}
    collection = collect(corpus, {"q": "1 1 0"}, test={"q": {"long": 1}})
    encoder = Numbers(width=3)
    evaluation = evaluate(Retrieval(dims=[2, 3]), encoder, collection, store)
    assert evaluation.metrics["mrr@10"] == 1 / 3
    assert [evaluation.dims[dim].system for dim in (2, 3)] == ["base@2", "base@3"]
    # Cut to two, `long` and `both` point the same way as the query, and lengths no longer count.
    cut = dict(evaluation.dims[2].ranking.documents["q"])
    assert cut == pytest.approx({"both": 1, "long": 1, "left": 1 / (2 * 0.82) ** 0.5}, abs=1e-6)
    assert evaluation.dims[3].metrics == evaluation.metrics
    assert [found.facts["reused"] for found in (evaluation, *evaluation.dims.values())] == [False, False, True]


def test_a_dimension_that_the_model_does_not_have_is_refused(store: Store) -> None:
    collection = collect(CORPUS, {"q": "1 0"}, test={"q": {"x": 1}})
    with pytest.raises(ConfigError, match=r"evaluator.dims: 8 exceeds the model's 2 dimensions"):
        evaluate(Retrieval(dims=[1, 8]), Numbers(), collection, store)


def test_vectors_that_are_not_numbers_are_the_models_fault(store: Store) -> None:
    collection = collect(CORPUS | {"bad": "nan 1"}, {"q": "1 0"}, test={"q": {"x": 1}})
    with pytest.raises(
        UserError, match=r"the model's vectors cannot be searched: row 4 of the documents is not finite"
    ):
        evaluate(Retrieval(), Numbers(), collection, store)


def test_validation_measures_the_dev_split_without_keeping_anything() -> None:
    collection = collect(CORPUS, {"q1": "1 0", "q2": "0 1"}, dev={"q2": {"y": 1}}, test={"q1": {"x": 1}})
    encoder = Numbers()
    found = validate(Retrieval(metrics=["mrr@10"]).judging, encoder, collection)
    assert found.metrics == pytest.approx({"mrr@10": 1 / 2, "ndcg@10": 1 / np.log2(3)})
    assert found.queries == pytest.approx([1 / np.log2(3)])
    assert encoder.encoded == {"query": 1, "document": 4}


def test_validation_searches_the_judged_documents_and_a_sample() -> None:
    collection = collect(CORPUS, {"q1": "1 0", "q2": "0 1"}, dev={"q2": {"y": 1}})
    everything = validate(Retrieval(dev_documents=None).judging, Numbers(), collection)
    assert everything.metrics["ndcg@10"] == pytest.approx(1 / np.log2(3))
    encoder = Numbers()
    assert validate(Retrieval(dev_documents=1).judging, encoder, collection).metrics["ndcg@10"] == 1.0  # y alone
    assert encoder.encoded["document"] == 1
    assert subcorpus(collection, "dev", 3).tolist() == subcorpus(collection, "dev", 3).tolist()
    assert len(subcorpus(collection, "dev", 3)) == 3
    assert collection.document_rows["y"] in subcorpus(collection, "dev", 3)
    assert subcorpus(collection, "dev", None).tolist() == [0, 1, 2, 3]
    assert subcorpus(collection, "dev", 1).tolist() == [collection.document_rows["y"]]


def test_runs_that_differ_in_their_seed_are_validated_on_the_same_documents() -> None:
    documents = {f"d{row}": f"{row} 1" for row in range(40)} | {"y": "20.5 1"}
    collection = collect(documents, {"q": "1 0"}, dev={"q": {"y": 1}})
    found = [validate(Retrieval(dev_documents=5, seed=seed).judging, Numbers(), collection) for seed in range(5)]
    assert all(one == found[0] for one in found)


def test_validation_reports_documents_that_training_sees_and_others() -> None:
    corpus = {**CORPUS, "copy": CORPUS["x"]}
    queries = {"t": "2 0", "q1": "1 0", "q2": "0 1", "q3": "3 0"}
    dev = {"q1": {"copy": 1}, "q2": {"y": 1}, "q3": {"y": 1, "x": 1}}
    collection = collect(corpus, queries, train={"t": {"x": 1}}, dev=dev)
    found = validate(Retrieval(metrics=["mrr@10"]).judging, Numbers(), collection)
    values = dict(zip(("q1", "q2", "q3"), found.queries, strict=True))
    assert found.metrics["ndcg@10/seen"] == pytest.approx((values["q1"] + values["q3"]) / 2)
    assert found.metrics["ndcg@10/unseen"] == pytest.approx(values["q2"])
    assert found.metrics["ndcg@10"] == pytest.approx(sum(found.queries) / 3)


def test_bm25_retrieves_only_documents_that_share_a_word(store: Store) -> None:
    corpus = {"cat": "the cat sat on the mat", "dog": "a dog barked", "cats": "cats and dogs"}
    collection = collect(corpus, {"q1": "cats sitting", "q2": "purple"}, test={"q1": {"cat": 1}, "q2": {"dog": 1}})
    evaluation = evaluate_words(Retrieval(), collection, store)
    assert evaluation.system == "bm25"
    assert {query: sorted(dict(found)) for query, found in evaluation.ranking.documents.items()} == {
        "q1": ["cat", "cats"],
        "q2": [],
    }
    assert evaluation.per_query["recall@10"] == {"q1": 1.0, "q2": 0.0}


def test_seen_and_unseen_queries_are_told_apart_by_documents_and_their_copies(store: Store) -> None:
    collection = collect(
        CORPUS,
        {"t": "1 0", "q1": "1 0", "q2": "0 1", "q3": "1 1", "q4": "1 1"},
        train={"t": {"y": 1, "z": 0}},  # y2 is a copy of y; z was judged, and is not relevant
        test={"q1": {"y2": 1}, "q2": {"z": 1}, "q3": {"x": 1, "y": 2}, "q4": {"x": 1, "y": 0}},
    )
    evaluation = evaluate(Retrieval(near_copy=None), Numbers(), collection, store)
    assert evaluation.subsets == {"unseen": ["q2", "q4"], "seen": ["q1", "q3"]}


def test_other_training_judgements_part_the_queries_anew(store: Store) -> None:
    queries, test = {"t": "1 0", "q1": "1 0", "q2": "0 1"}, {"q1": {"x": 1}, "q2": {"z": 1}}
    for trained, seen, unseen in (("x", "q1", "q2"), ("z", "q2", "q1")):
        collection = collect(CORPUS, queries, train={"t": {trained: 1}}, test=test)
        subsets = evaluate(Retrieval(near_copy=None), Numbers(), collection, store).subsets
        assert subsets == {"unseen": [unseen], "seen": [seen]}


def test_subsets_that_are_everything_are_not_told_apart(store: Store) -> None:
    unseen = collect(CORPUS, {"t": "1 0", "q": "1 0"}, train={"t": {"z": 1}}, test={"q": {"x": 1}})
    seen = collect(CORPUS, {"t": "1 0", "q": "1 0"}, train={"t": {"x": 1}}, test={"q": {"x": 1}})
    assert evaluate(Retrieval(), Numbers(), unseen, store).subsets == {}
    assert evaluate(Retrieval(), Numbers(), seen, store).subsets == {}


def test_near_copies_of_what_training_saw_are_a_part_of_their_own(store: Store) -> None:
    text = "a long page on the care of wounds which says to clean them and to keep them dry and covered until they heal"
    collection = collect(
        {"a": text, "b": text.replace("heal", "are healed"), "c": "nothing of the kind", "d": "of another kind yet"},
        {
            "t": "how do I clean a wound at home",
            "q1": "wounds",
            "q2": "how do I clean a wound at my home",
            "q3": "kinds",
        },
        train={"t": {"a": 1, "c": 0}},
        test={"q1": {"b": 1}, "q2": {"c": 1}, "q3": {"d": 1, "b": 0}},
    )
    evaluation = evaluate_words(Retrieval(), collection, store)
    assert evaluation.subsets == {"unseen": ["q3"], "near-copy": ["q1", "q2"]}  # q1 by its document, q2 by its words
    assert evaluate_words(Retrieval(near_copy=None), collection, store).subsets == {}
    strict = evaluate_words(Retrieval(near_copy=0.88), collection, store)  # words: 8 of 9
    assert strict.subsets == {"unseen": ["q1", "q3"], "near-copy": ["q2"]}


def test_validation_measures_each_dimension_of_one_embedding() -> None:
    corpus = {"long": "0.1 0.1 0.7", "left": "0.9 0.3 0.1", "both": "0.5 0.5 0.1"}
    collection = collect(corpus, {"q": "1 1 0"}, dev={"q": {"left": 1}})
    encoder = Numbers(width=3)
    found = validate(Retrieval(metrics=["mrr@10"], dims=[1, 2, 3]).judging, encoder, collection)
    # `left` is first; cut to two dimensions it is third, cut to one it ties with the others and is second by id.
    expected = {"mrr@10": 1.0, "ndcg@10": 1.0, "ndcg@10/1": 1 / np.log2(3), "ndcg@10/2": 1 / 2}
    assert found.metrics == pytest.approx(expected)
    assert encoder.encoded == {"query": 1, "document": 3}


def test_systems_are_compared_on_every_metric_and_subset(store: Store) -> None:
    collection = collect(
        CORPUS,
        {"t": "1 0", "q1": "1 0", "q2": "0 1", "q3": "0 1"},
        train={"t": {"x": 1}},
        test={"q1": {"x": 1}, "q2": {"z": 1}, "q3": {"y": 1}},
    )
    retriever = Retrieval(metrics=["mrr@10", "recall@1"], near_copy=None, resamples=2_000)
    a = evaluate(retriever, Numbers(), collection, store)
    b = evaluate_words(retriever, collection, store)
    found = retriever.compare(b, a)
    assert [(c.a, c.b, c.subset, c.metric, c.queries) for c in found] == [
        ("bm25", "base", "all", "mrr@10", 3),
        ("bm25", "base", "all", "recall@1", 3),
        ("bm25", "base", "unseen", "mrr@10", 2),
        ("bm25", "base", "unseen", "recall@1", 2),
        ("bm25", "base", "seen", "mrr@10", 1),
        ("bm25", "base", "seen", "recall@1", 1),
    ]
    everything = found[0]
    assert everything.difference == pytest.approx(a.metrics["mrr@10"] - b.metrics["mrr@10"])
    assert everything.wins + everything.ties + everything.losses == 3
    assert everything.ci95 is None  # three queries
    mirrored = retriever.compare(a, b)[0]
    assert (mirrored.difference, mirrored.p) == (pytest.approx(-everything.difference), everything.p)


def test_what_was_not_evaluated_alike_is_not_compared(store: Store) -> None:
    collection = collect(CORPUS, {"q1": "1 0", "q2": "0 1"}, test={"q1": {"x": 1}}, dev={"q2": {"z": 1}})
    a = evaluate(Retrieval(), Numbers(), collection, store)
    b = evaluate(Retrieval(), Numbers(), collection, store, split="dev")
    with pytest.raises(ValueError, match="differ"):
        Retrieval().compare(a, b)
    other = collect(CORPUS, {"q1": "1 0", "q2": "0 1"}, test={"q2": {"x": 1}})
    with pytest.raises(ValueError, match="different queries"):
        Retrieval().compare(a, evaluate(Retrieval(), Numbers(), other, store))


def test_a_metric_deeper_than_the_search_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the cutoff of recall@100 exceeds evaluator.depth=50"):
        Retrieval(depth=50)
    with pytest.raises(ConfigError, match=r"'ndgc@10' is not a metric"):
        Retrieval(metrics=["ndgc@10"])
    with pytest.raises(ConfigError, match=r"the list is empty"):
        Retrieval(metrics=[])
