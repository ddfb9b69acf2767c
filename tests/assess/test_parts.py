"""Labels, words, power and cost: what they count on texts and numbers that are known."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl

from embfit.assess.candidates import measure_candidate
from embfit.assess.label_quality import judgement_gaps
from embfit.assess.power import statistical_power
from embfit.assess.trial import Trial, estimate, time_training
from embfit.assess.vocabulary import document_words, vocabulary_coverage
from embfit.evaluator.power import queries_needed
from embfit.loss import InfoNCE
from embfit.miner import NoNegatives
from embfit.model import Encoder
from embfit.records import Collection, Evaluation, Ranking
from embfit.store import Store
from embfit.training import Training
from tests.assess.contexts import context

SIZES = (1000, 50_000, 100_000)
DOCUMENTS = {
    "d1": "the heart pumps blood",
    "d2": "The heart pumps blood",
    "d3": "the heart pumps blood",
    "d4": "the blood of the heart",
    "d5": "zzxqy the blood",
}
QUERIES = {"q1": "heart blood", "q2": "heart blood", "q3": "the zzxqy wwvk"}
GRADES = {"q1": {"d1": 1}, "q2": {"d4": 2, "d5": 0}, "q3": {"d5": 1}}


def evaluation(system: str, values: dict[str, float], ranking: Ranking | None = None) -> Evaluation:
    mean = sum(values.values()) / len(values)
    return Evaluation(system, "test", {"ndcg@10": mean}, {"ndcg@10": values}, {}, ranking or Ranking({}))


def test_gaps_and_copies_are_counted(tiny_encoder: Encoder, store: Store) -> None:
    shown = {"q1": [("d1", 1.0), ("d3", 0.9)], "q2": [("d5", 1.0), ("d4", 0.5)], "q3": [("d1", 0.1)]}
    base = evaluation("base", {"q1": 1.0, "q2": 0.5, "q3": 0.0}, Ranking(shown))
    found = judgement_gaps(context(tiny_encoder, store, DOCUMENTS, QUERIES, GRADES), [base])
    assert found == {
        "queries": 3,
        "relevant_per_query": 1.0,
        "unjudged_at_10": {"base": 2 / 5},  # d3 for q1 and d1 for q3; d5 is judged for q2
        "copied_documents": 2,  # d1 and d3; d2 differs in a letter
        "copies_not_judged": 1,  # d3 for q1
    }


def test_words_are_counted_by_documents(tiny_encoder: Encoder, store: Store) -> None:
    found = vocabulary_coverage(context(tiny_encoder, store, DOCUMENTS, QUERIES, GRADES))
    # the (5), heart (4), pumps (3), blood (5), of (1), zzxqy (1): 19 word occurrences by document
    assert found["words"] == 6
    lengths = {
        word: len(tiny_encoder.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in ("zzxqy", "of")
    }
    pieces = 5 + 4 + 3 + 5 + lengths["of"] + lengths["zzxqy"]
    assert found["pieces_per_word"] == pytest.approx(pieces / 19)
    assert found["query_words"] == 7
    assert found["query_rare_share"] == pytest.approx(1 / 7)  # zzxqy is in one document
    assert found["query_absent_share"] == pytest.approx(1 / 7)  # wwvk is in none
    assert found["queries_with_rare"] == pytest.approx(1 / 3)
    assert found["queries_with_absent"] == pytest.approx(1 / 3)
    assert document_words(tiny_encoder, context(tiny_encoder, store, DOCUMENTS, QUERIES, GRADES).collection) == {
        name: found[name] for name in ("words", "pieces_per_word", "split_share", "unknown_share", "split_examples")
    }
    typos = {"q1": "heartt blood", "q2": "heart bloodd", "q3": "the zzxqy"}
    found = vocabulary_coverage(context(tiny_encoder, store, DOCUMENTS, typos, GRADES))
    assert (found["query_rare_share"], found["query_absent_share"]) == pytest.approx((1 / 6, 2 / 6))
    assert (found["queries_with_rare"], found["queries_with_absent"]) == pytest.approx((1 / 3, 2 / 3))


def test_the_deviation_is_the_median_of_those_seen() -> None:
    base = evaluation("base", {"a": 0.0, "b": 0.0})
    others = [evaluation(str(gap), {"a": gap, "b": -gap}) for gap in (0.1, 0.2, 0.5)]
    found = statistical_power(base, others, 0.05)
    assert found["deviations"] == pytest.approx({str(gap): gap * 2**0.5 for gap in (0.1, 0.2, 0.5)})
    assert found["deviation"] == pytest.approx(0.2 * 2**0.5)
    assert found["needed"] == queries_needed(0.2 * 2**0.5, 0.05)
    assert statistical_power(evaluation("base", {"a": 0.0, "b": 1.0}), [], 0.05)["deviation"] == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("values", [{"a": 0.5}, {"a": 0.5, "b": 0.7, "c": 0.1}])
def test_one_query_or_no_difference_tells_nothing(values: dict[str, float]) -> None:
    base = evaluation("base", values)
    found = statistical_power(base, [evaluation("same", {query: value + 0.1 for query, value in values.items()})], 0.03)
    assert (found["deviation"], found["needed"], found["smallest"]) == (None, None, None)
    assert set(found["table"].values()) == {None}
    if len(values) > 1:  # a system that is the base says nothing of others
        other = evaluation("other", dict.fromkeys(values, 0.2))
        assert statistical_power(base, [base, other], 0.03)["deviation"] == pytest.approx(
            float(np.std([0.5, 0.7, 0.1], ddof=1))
        )


def test_a_trial_is_short_whatever_the_training(
    tiny_encoder: Encoder, small_collection: Collection, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It mines nothing again, has no time limit and is not validated; the first of its steps warms up."""
    done: list[Training] = []

    def fit(self: Training, *arguments: Any) -> SimpleNamespace:
        trainer: partial[pl.Trainer] = arguments[4]
        trainer.keywords["callbacks"][-1].ends = [0.0, 9.0, 10.0, 12.0]
        assert arguments[3] is None
        assert isinstance(arguments[6], Path)
        done.append(self)
        return SimpleNamespace(steps=4, epochs=0.5, peak_memory_gb=1.5)

    monkeypatch.setattr(Training, "fit", fit)
    training = Training(max_time="00:30:00", checkpoint_every=2, remine_every=1)
    examples = NoNegatives().mine(small_collection, tiny_encoder, store)
    found = time_training(tiny_encoder, InfoNCE(), training, partial(pl.Trainer), examples, store, 3)
    assert found == Trial(3, 2.0, 8.0, len(examples), 1.5)
    [short] = done
    assert (short.steps, short.max_time, short.checkpoint_every, short.remine_every) == (4, None, None, None)


def test_estimates_grow_with_the_corpus() -> None:
    trial = Trial(steps=8, step_seconds=2.0, steps_per_epoch=10, examples=640, peak_memory_gb=1.0)
    here, larger = estimate(trial, Training(epochs=3), 1000, 50.0, 384, 7.2, (1000, 10_000))
    assert (here["embed_before"], here["train"], here["embed_after"], here["total"]) == (20, 60, 20, 100)
    assert here["price"] == pytest.approx(100 / 3600 * 7.2)
    assert here["embed_price"] == pytest.approx(20 / 3600 * 7.2)
    assert here["vector_bytes"] == 1000 * 384 * 4
    assert (larger["documents"], larger["total"]) == (10_000, 1000)
    assert estimate(trial, Training(epochs=3), 1000, 50.0, 384, None, (1000,))[0]["price"] is None


def test_fixed_steps_and_a_time_limit_do_not_grow_with_the_corpus() -> None:
    trial = Trial(steps=8, step_seconds=2.0, steps_per_epoch=10, examples=640, peak_memory_gb=1.0)
    found = estimate(trial, Training(steps=40), 1000, 50.0, 384, None, SIZES)
    assert [one["train"] for one in found] == [80, 80, 80]
    found = estimate(trial, Training(epochs=3, max_time="00:30:00"), 1000, 50.0, 384, None, SIZES)
    assert [one["train"] for one in found] == [60, 1800, 1800]  # 3,000 and 6,000 without the limit


def test_a_candidate_is_weighed(tiny_encoder: Encoder, store: Store) -> None:
    made = context(tiny_encoder, store, DOCUMENTS, QUERIES, GRADES)
    truncated = np.array([True, False, False, False, False])
    found = measure_candidate("tiny", tiny_encoder, made.collection, truncated, 3, 0)
    assert (found.dimensions, found.bytes_per_document, found.truncated) == (32, 128, 0.2)
    assert found.parameters == sum(weight.numel() for weight in tiny_encoder.parameters())
    assert found.documents_per_second > 0
