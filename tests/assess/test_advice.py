from dataclasses import replace
from typing import Any

import pytest

from embfit.assess.advice import Findings, advise
from embfit.assess.late_interaction import verdict_of
from embfit.records import Comparison, Evaluation, Ranking

LABELS = {"unjudged_at_10": {"base": 0.9}, "relevant_per_query": 1.2, "copies_not_judged": 3}
WORDS = {"split_share": 0.05, "query_split_share": 0.1, "queries_with_rare": 0.25, "queries_with_absent": 0.125}
HYBRID = Comparison("base", "hybrid", "ndcg@10", "all", 300, 0.01, (0.001, 0.02), 0.03, 60, 200, 40, 0.06)
MODEL = replace(HYBRID, b="bge-small", difference=0.08, ci95=(0.05, 0.11), p=0.0001, p_holm=0.0002)
CHUNKS = {
    "settings": [
        {"name": "cut off", "tokens": 256},
        {"name": "pieces of 256", "difference": 0.05, "ci95": [0.02, 0.08], "p": 0.001},
    ]
}

GAIN = {"metric": "ndcg@10", "queries": 80, "difference": 0.1, "ci95": [0.06, 0.14], "p": 0.0002}


def found(value: float = 0.5, needed: int = 200, **changes: Any) -> Findings:
    values = {
        "base": Evaluation("base", "test", {"ndcg@10": value}, {}, {}, Ranking({})),
        "comparisons": [HYBRID],
        "models": ["base", "bge-small"],
        "chunks": {},
        "truncated": 0.4,
        "vocabulary": WORDS,
        "labels": LABELS,
        "power": {
            "metric": "ndcg@10", "queries": 300, "needed": needed, "smallest": 0.0249, "hoped": 0.03, "deviation": 0.154
        },
        "examples": 1500,
        "estimates": [],
        "failed": {},
    }  # fmt: skip
    return Findings(**(values | changes))


@pytest.mark.parametrize(
    ("findings", "action", "sentence"),
    [
        (
            found(needed=900, examples=40),
            "judge",
            "Judge more queries first: 300 queries show gains of 0.025 nDCG@10 or more, and the 0.03 hoped for takes "
            "about 900.",
        ),
        (
            found(value=0.78, needed=900),  # too few queries for the base's value to decide
            "judge",
            "Judge more queries first: 300 queries show gains of 0.025 nDCG@10 or more, and the 0.03 hoped for takes "
            "about 900.",
        ),
        (
            found(value=0.78, gain=GAIN),  # above 0.70, and a short fine-tuning gains all the same
            "fine-tune",
            "Fine-tune, from the base: a short one gains +0.100 nDCG@10 on dev.",
        ),
        (
            found(value=0.78, needed=900, examples=40, gain=GAIN, chunks=CHUNKS),
            "fine-tune",
            "Fine-tune, from the base: a short one gains +0.100 nDCG@10 on dev. Pieces of 256 tokens gain +0.050 over "
            "documents that are cut off.",
        ),
        (
            found(chunks=CHUNKS, gain={**GAIN, "difference": 0.04}),  # pieces gain more, without training
            "set-up",
            "Improve the set-up before the model. Pieces of 256 tokens gain +0.050 over documents that are cut off.",
        ),
        (
            found(value=0.78, gain={**GAIN, "p": 0.2}),
            "set-up",
            "The set-up before the model: the base reaches nDCG@10 0.7800, above 0.70, so less is left to gain. Look "
            "at chunking, hybrid search and reranking first.",
        ),
        (
            found(value=0.78),
            "set-up",
            "The set-up before the model: the base reaches nDCG@10 0.7800, above 0.70, so less is left to gain. Look "
            "at chunking, hybrid search and reranking first. A short fine-tuning (training.steps=40) shows whether "
            "training is worth it nevertheless.",
        ),
        (
            found(value=0.78, chunks=CHUNKS),
            "set-up",
            "Improve the set-up before the model. Pieces of 256 tokens gain +0.050 over documents that are cut off.",
        ),
        (
            found(needed=900, comparisons=[replace(HYBRID, difference=0.06, p_holm=0.01)]),  # 300 have shown it
            "set-up",
            "Improve the set-up before the model. Hybrid gains +0.060 nDCG@10 without any training.",
        ),
        (
            found(examples=40),
            "data",
            "Make training data first: 40 training queries are too few to learn a domain from.",
        ),
        (found(), "fine-tune", "Fine-tune, from the base: at nDCG@10 0.5000 there is room to improve."),
        (
            found(comparisons=[HYBRID, MODEL]),
            "fine-tune",
            "Fine-tune, from bge-small (nDCG@10 +0.080 above the base): at nDCG@10 0.5000 there is room to improve.",
        ),
        (
            found(comparisons=[replace(HYBRID, p_holm=0.01)]),
            "fine-tune",
            "Fine-tune, from the base: at nDCG@10 0.5000 there is room to improve. Hybrid gains +0.010 nDCG@10 without "
            "any training.",
        ),
    ],
)
def test_one_recommendation(findings: Findings, action: str, sentence: str) -> None:
    advice = advise(findings)
    assert (advice.action, advice.recommendation) == (action, sentence)


def test_the_ceiling_is_that_of_ndcg_whatever_the_first_metric() -> None:
    findings = found(power=found().power | {"metric": "success@100"}, comparisons=[])

    def judged(**metrics: float) -> tuple[str, str]:
        named = {name.replace("_", "@"): value for name, value in metrics.items()}
        advice = advise(replace(findings, base=replace(findings.base, metrics=named)))
        return advice.recommendation, advice.reasons[0]

    assert judged(success_100=1.0) == (
        "Fine-tune, from the base.",
        "The base reaches Success@100 1.0000 on 300 queries of test.",
    )
    assert judged(success_100=1.0, ndcg_10=0.6) == (
        "Fine-tune, from the base: at nDCG@10 0.6000 there is room to improve.",
        "The base reaches Success@100 1.0000 on 300 queries of test, and nDCG@10 0.6000: there is room to improve.",
    )
    recommendation, reason = judged(success_100=1.0, ndcg_10=0.78)
    assert recommendation.startswith(
        "The set-up before the model: the base reaches nDCG@10 0.7800, above 0.70, so less"
    )
    assert reason.endswith("and nDCG@10 0.7800: less is left to gain.")


def test_several_sizes_of_pieces_are_called_better_by_the_corrected_p() -> None:
    sizes = [{**CHUNKS["settings"][1], "p": 0.03, "p_holm": p} for p in (0.06, 0.04)]
    by_chance, better = (found(chunks={"settings": [CHUNKS["settings"][0], one]}) for one in sizes)
    assert by_chance.best_chunks is None
    assert advise(by_chance).reasons[2].endswith("(+0.020 to +0.080), no significant difference.")
    assert better.best_chunks is not None
    assert advise(better).reasons[2].endswith("(+0.020 to +0.080), better.")


def test_what_is_not_known_is_not_claimed() -> None:
    unknown = {"needed": None, "smallest": None, "deviation": None}
    one = advise(found(power=found().power | unknown | {"queries": 1}))
    assert one.recommendation == "Judge more queries first: one query shows no gain, whatever its size."
    assert (
        "How many queries it takes to see 0.03 is not known: one query does not tell how much they vary." in one.reasons
    )
    same = advise(found(power=found().power | unknown))
    assert same.action == "fine-tune"
    assert "How many queries it takes to see 0.03 is not known: all 300 differ by the same." in same.reasons


def test_reasons_hold_the_numbers() -> None:
    estimates = [{"documents": 4500, "total": 754.0}, {"documents": 50_000, "total": 8400.0}]
    reasons = advise(found(chunks=CHUNKS, estimates=estimates)).reasons
    assert reasons == [
        "The base reaches nDCG@10 0.5000 on 300 queries of test: there is room to improve.",
        "hybrid against the base: +0.010 (+0.001 to +0.020, p = 0.06), no significant difference.",
        "40% of the documents are longer than the model reads; against cutting them off: pieces of 256 tokens +0.050 "
        "(+0.020 to +0.080), better.",
        "The tokenizer splits 5.0% of the corpus's words and 10.0% of the queries' into four pieces or more; 25% of "
        "the queries have a word that one to three documents have, which BM25 is good at, and 12% "
        "one that no document has.",
        "A query has 1.2 relevant documents on average, and 90% of the base's first ten are unjudged: they count as "
        "wrong, although some may be relevant.",
        "3 copies of relevant documents are not judged relevant and count as wrong.",
        "Queries differ by 0.154 (standard deviation of paired differences), so 300 queries show gains of 0.025 or "
        "more; a gain of 0.03 takes about 200.",
        "There are 1,500 training queries.",
        "A fine-tuning takes about 12 min 34 s with embedding, as does each later one; 50,000 documents take "
        "2 h 20 min.",
    ]


def test_the_trials_gain_is_a_reason() -> None:
    assert (
        "A short fine-tuning changes nDCG@10 by +0.100 (+0.060 to +0.140, p = 0.0002) on 80 queries of dev, better."
        in advise(found(gain=GAIN)).reasons
    )
    worse = {**GAIN, "difference": -0.02, "ci95": None, "p": 0.01}
    assert any(reason.endswith("of dev, worse.") for reason in advise(found(gain=worse)).reasons)


@pytest.mark.parametrize(
    ("findings", "begins"),
    [
        (found(value=0.78, gain=GAIN), "A short fine-tuning changes"),
        (found(value=0.78), "The base reaches"),
        (found(chunks=CHUNKS), "40% of the documents are longer"),
        (found(comparisons=[replace(HYBRID, difference=0.06, p_holm=0.01)]), "hybrid against the base"),
        (found(needed=900), "Queries differ by"),
        (found(examples=40), "There are 40 training queries"),
        (found(comparisons=[HYBRID, MODEL]), "bge-small against the base"),
        (found(), "The base reaches"),
    ],
)
def test_the_reason_that_decided_is_known(findings: Findings, begins: str) -> None:
    advice = advise(findings)
    assert advice.reasons[advice.decided_by].startswith(begins)


def weighed(rare: float = 0.1, cut_off: float = 0.1, **gain: Any) -> tuple[str, str]:
    measured = {"metric": "ndcg@10", "documents": 2000, **gain} if gain else None
    size = {"bytes_per_document": 7700.0, "times": 5.0}
    return verdict_of({"rare_share": rare, "cut_off_share": cut_off, "gain": measured, **size}, hoped=0.03)


def test_late_interaction_can_be_worth_its_storage_and_not() -> None:
    storage = "an index of about 7,700 bytes a document, 5 times one vector's"
    shares = (
        "10% of the queries have a word that one to three documents have, and 10% are about a document that one vector"
    )
    no = f"Late interaction is not worth its storage here: only {shares} cuts off, and it takes {storage}."
    assert weighed() == ("no", no)
    assert weighed(rare=0.47)[0] == weighed(cut_off=0.25)[0] == "try"
    verdict, sentence = weighed(difference=0.05, ci95=[0.02, 0.08], p=0.001)
    assert verdict == "yes"
    assert sentence == (
        "Late interaction is worth its storage: a late-interaction model changes nDCG@10 by +0.050 (+0.020 to +0.080, "
        f"p = 0.001) on 2,000 documents, for {storage}."
    )
    assert weighed(rare=0.9, difference=0.004, ci95=[-0.01, 0.02], p=0.6)[0] == "no"  # what is measured decides
    assert weighed(difference=-0.02, ci95=[-0.05, -0.001], p=0.04)[0] == "no"
    assert weighed(difference=0.02, ci95=[-0.01, 0.05], p=0.2)[0] == "unclear"
    assert weighed(difference=0.04, ci95=None, p=0.3)[0] == "unclear"
    (reason,) = [one for one in advise(found(late={"sentence": no})).reasons if "Late" in one]
    assert reason == no
