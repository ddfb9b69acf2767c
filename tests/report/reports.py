"""A report whose numbers are known, for the tests of what is written from it."""

from collections.abc import Mapping

from embfit.evaluator.comparison import compare
from embfit.evaluator.judging import judge
from embfit.records import Collection, Evaluation, Ranking, Report
from tests.conftest import make_collection

METRICS = ("ndcg@10", "mrr@10")

# Where each system ranks the one document relevant to each query.
BASE = {"q1": 1, "q2": 3, "q3": 3, "q4": 2}
TUNED = {"q1": 1, "q2": 1, "q3": 1, "q4": 3}
BM25 = {"q1": 3, "q2": 3, "q3": 3, "q4": 3}


def collection() -> Collection:
    documents = {f"d{place}": f"text of <b>document</b> {place} </script>" for place in range(1, 6)}
    queries = {"t": "training"} | {f"q{place}": f"question {place} & more" for place in range(1, 5)}
    qrels = {"train": {"t": {"d1": 1, "d2": 1}}, "test": {f"q{place}": {f"d{place}": 1} for place in range(1, 5)}}
    return make_collection(documents, queries, qrels)


def system(name: str, places: Mapping[str, int]) -> Evaluation:
    """A system that ranks each query's relevant document at the place given, among the others."""
    scored = {}
    for query, place in places.items():
        order = [document for document in ("d1", "d2", "d3", "d4", "d5") if document[1] != query[1]]
        order.insert(place - 1, f"d{query[1]}")
        scored[query] = [(document, 1 - 0.1 * index) for index, document in enumerate(order)]
    subsets = {"unseen": ["q3", "q4"], "seen": ["q1", "q2"]}
    return judge(name, collection(), "test", Ranking.of(scored), METRICS, {"seconds": 1.5}, subsets)


def report(**changes: object) -> Report:
    base, tuned, bm25 = system("base", BASE), system("tuned", TUNED), system("bm25", BM25)
    values: dict[str, object] = {
        "task": "finetune",
        "evaluations": [base, bm25, tuned],
        "comparisons": [*compare(base, tuned, 1_000, 0), *compare(bm25, tuned, 1_000, 0)],
        "training": {
            "epochs": 3.0,
            "kept_step": 10,
            "history": [{"step": 0, "ndcg@10": 0.5}, {"step": 10, "ndcg@10": 0.6}],
        },
        "mining": {"negatives": 12},
        "data": {"merged_queries": 2},
        "timings": {"data": 0.5, "training": 61.0},
    }
    return Report(**(values | changes))  # type: ignore[arg-type]
