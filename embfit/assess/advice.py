"""One plain recommendation with its reasons, drawn from the measurements by a few rules that are written out here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from embfit.assess.candidates import ModelCandidate
from embfit.assess.chunking import CUT_OFF
from embfit.evaluator.comparison import ALL
from embfit.records import Comparison, Evaluation
from embfit.report.findings import LEVEL, outcome
from embfit.report.formatting import bounds, count, duration, metric_label, plain, probability, signed, untold

CEILING = 0.70  # nDCG@10 above which fine-tuning has less to gain
FEW_EXAMPLES = 200  # training queries below which more data comes first

Action: TypeAlias = Literal["judge", "set-up", "data", "fine-tune"]


@dataclass(frozen=True)
class Advice:
    """What to do next.

    Args:
        action: the next step: `judge` more queries, improve the retrieval `set-up`, make training `data`, or
            `fine-tune`.
        recommendation: the next step in a sentence or two.
        reasons: the findings behind it, each with its numbers.
        decided_by: the place among the reasons, from 0, of the one that decided.
    """

    action: Action
    recommendation: str
    reasons: list[str]
    decided_by: int


@dataclass(frozen=True)
class Findings:
    """The measurements that the recommendation rests on.

    Args:
        base: the configured model's evaluation.
        comparisons: the comparison of every other system with it, in the first metric over all queries.
        models: the names of the systems that are base models.
        chunks: the result of `compare_chunks`; empty if no document is cut off.
        truncated: the share of documents that are cut off.
        vocabulary: the result of `vocabulary_coverage`.
        labels: the result of `judgement_gaps`.
        power: the result of `statistical_power`.
        examples: the number of training queries.
        estimates: the result of `estimate`; empty without a trial.
        gain: the result of `trial_gain`; None without a trial or a dev split.
        failed: base model → why it could not be measured.
        late: the result of `weigh_late_interaction`; empty if it was not weighed.
        generation: what the chosen generator would write, in a sentence; empty without one.
    """

    base: Evaluation
    comparisons: Sequence[Comparison]
    models: Sequence[str]
    chunks: Mapping[str, Any]
    truncated: float
    vocabulary: Mapping[str, Any]
    labels: Mapping[str, Any]
    power: Mapping[str, Any]
    examples: int
    estimates: Sequence[Mapping[str, Any]]
    failed: Mapping[str, str]
    gain: Mapping[str, Any] | None = None
    late: Mapping[str, Any] = field(default_factory=dict)
    generation: str = ""

    @property
    def value(self) -> float:
        """The base model's value of the first metric."""
        return self.base.metrics[self.power["metric"]]

    @property
    def metric(self) -> str:
        """The first metric's name, as people write it."""
        return metric_label(self.power["metric"])

    @property
    def ndcg(self) -> float | None:
        """The base model's nDCG@10, which tells whether there is room to improve; None if it is not measured."""
        return self.base.metrics.get("ndcg@10")

    @property
    def shown_gain(self) -> float:
        """What the trial's training gained on dev, if that is not by chance; else 0."""
        if self.gain is None or self.gain["p"] >= LEVEL:
            return 0.0
        return max(0.0, float(self.gain["difference"]))

    @property
    def is_high(self) -> bool:
        """Whether nDCG@10 leaves little to gain; there is no such threshold for other metrics."""
        return self.ndcg is not None and self.ndcg > CEILING

    def best(self, models: bool) -> Comparison | None:
        """Return the system that is furthest and significantly above the base; None if there is none.

        Args:
            models: whether to look among the base models or among all other systems.
        """
        better = [
            found for found in self.comparisons if (found.b in self.models) == models and outcome(found) == "better"
        ]
        return max(better, key=lambda found: found.difference, default=None)

    @property
    def best_chunks(self) -> Mapping[str, Any] | None:
        """The pieces that are furthest and significantly better than documents cut off; None if there are none."""
        better = [one for one in self.chunks.get("settings", ()) if _deciding_p(one) < LEVEL and one["difference"] > 0]
        return max(better, key=lambda one: float(one["difference"]), default=None)


def conclude(
    base: Evaluation,
    comparisons: Sequence[Comparison],
    candidates: Sequence[ModelCandidate],
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what `report.json` holds as `assessment`: the advice, the base models, and all else that was measured.

    Args:
        base: the configured model's evaluation.
        comparisons: the comparison of every other system with it.
        candidates: the base models, the configured one first.
        measured: all other measurements: `chunks`, `vocabulary`, `labels`, `power`, `cost`, `failed`, `late` and
            `generation`.
    """
    power, cost = measured["power"], measured["cost"]
    advice = advise(
        Findings(
            base=base,
            comparisons=[one for one in comparisons if (one.metric, one.subset) == (power["metric"], ALL)],
            models=[candidate.system for candidate in candidates],
            chunks=measured["chunks"],
            truncated=candidates[0].truncated,
            vocabulary=measured["vocabulary"],
            labels=measured["labels"],
            power=power,
            examples=cost["examples"],
            estimates=cost["estimates"],
            gain=cost["gain"],
            failed=measured["failed"],
            late=measured["late"],
            generation=measured["generation"],
        )
    )
    return {**asdict(advice), "candidates": [asdict(candidate) for candidate in candidates], **measured}


def advise(found: Findings) -> Advice:
    """Apply the rules in order; the first that holds gives the recommendation.

    1. The split has one query: judge more.
    2. The trial's training gains what is hoped for on dev, significantly, and no less than hybrid search, reranking or
       pieces: fine-tune.
    3. Hybrid search, reranking or pieces already gain what is hoped for, significantly: use them first.
    4. The split is known to be too small to show the gain hoped for: judge more queries first. On so few queries the
       base's value decides nothing.
    5. The base's nDCG@10 is measured and above 0.70: there is little to gain, so look at chunking, hybrid search and
       reranking first.
    6. There are few training queries: make some first.
    7. Otherwise fine-tune, from the best base model measured.
    """
    action, topic, recommendation = _recommend(found)
    topics, reasons = zip(*_reasons(found), strict=True)
    return Advice(action, recommendation, list(reasons), topics.index(topic))


def _recommend(found: Findings) -> tuple[Action, str, str]:
    """Return the next step, the topic of the reason that decided, and the recommendation."""
    power, hoped = found.power, found.power["hoped"]
    if power["queries"] < 2:
        return "judge", "queries", "Judge more queries first: one query shows no gain, whatever its size."
    if found.shown_gain >= max(hoped, _set_up_gain(found)):
        return "fine-tune", "trial", _fine_tune(found)
    if (better := _set_up(found)) and _set_up_gain(found) >= hoped:
        return "set-up", _set_up_topic(found), f"Improve the set-up before the model. {better}"
    if power["needed"] is not None and power["queries"] < power["needed"]:
        said = (
            f"Judge more queries first: {count(power['queries'], 'query', 'queries')} show gains of "
            f"{power['smallest']:.3f} {found.metric} or more, and the {hoped:g} hoped for takes about "
            f"{power['needed']:,}."
        )
        return "judge", "queries", said
    if found.is_high:
        tried = (
            ""
            if found.gain
            else " A short fine-tuning (training.steps=40) shows whether training is worth it nevertheless."
        )
        said = (
            f"The set-up before the model: the base reaches nDCG@10 {plain(found.ndcg or 0)}, above {CEILING:.2f}, so "
            f"less is left to gain. {better or 'Look at chunking, hybrid search and reranking first.'}{tried}"
        )
        return "set-up", "base", said
    if found.examples < FEW_EXAMPLES:
        said = (
            f"Make training data first: {count(found.examples, 'training query', 'training queries')} are too few to "
            "learn a domain from."
        )
        return "data", "examples", said
    start = found.best(models=True)
    topic = "trial" if found.shown_gain else _system(start.b) if start else "base"
    return "fine-tune", topic, _fine_tune(found)


def _fine_tune(found: Findings) -> str:
    start, why = found.best(models=True), ""
    if found.shown_gain:
        why = f": a short one gains {signed(found.shown_gain, 3)} {found.metric} on dev"
    elif found.ndcg is not None:
        why = f": at nDCG@10 {plain(found.ndcg)} there is room to improve"
    where = (
        f"from {start.b} ({found.metric} {signed(start.difference, 3)} above the base)" if start else "from the base"
    )
    return f"Fine-tune, {where}{why}. {_set_up(found)}".strip()


def _set_up(found: Findings) -> str:
    """Return a sentence on what gains without training; empty if nothing does."""
    gains = []
    if system := found.best(models=False):
        gains.append(f"{system.b} gains {signed(system.difference, 3)} {found.metric} without any training")
    if chunks := found.best_chunks:
        gains.append(f"{chunks['name']} tokens gain {signed(chunks['difference'], 3)} over documents that are cut off")
    text = ", and ".join(gains)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _set_up_topic(found: Findings) -> str:
    """Return the topic of what gains most without training: a system, or pieces."""
    system, chunks = found.best(models=False), found.best_chunks
    if system and (not chunks or system.difference >= chunks["difference"]):
        return _system(system.b)
    return "pieces"


def _system(name: str) -> str:
    """Return the topic of a system's comparison with the base."""
    return f"system {name}"


def _set_up_gain(found: Findings) -> float:
    system, chunks = found.best(models=False), found.best_chunks
    return max(system.difference if system else 0.0, float(chunks["difference"]) if chunks else 0.0)


def _reasons(found: Findings) -> Iterator[tuple[str, str]]:
    """Yield each reason with its topic."""
    queries = count(found.power["queries"], "query", "queries")
    reached = f"The base reaches {found.metric} {plain(found.value)} on {queries} of {found.base.split}"
    if found.ndcg is None:
        yield "base", f"{reached}."
    else:
        other = "" if found.power["metric"] == "ndcg@10" else f", and nDCG@10 {plain(found.ndcg)}"
        yield "base", f"{reached}{other}: {'less is left to gain' if found.is_high else 'there is room to improve'}."
    for one in found.comparisons:
        p = one.p if one.p_holm is None else one.p_holm
        yield (
            _system(one.b),
            f"{one.b} against the base: {signed(one.difference, 3)} ({bounds(one.ci95, 3)}, p = {probability(p)}), "
            f"{outcome(one)}.",
        )
    for name, reason in found.failed.items():
        yield "failed", f"{name} was not measured: {reason}"
    yield "pieces", _lengths(found)
    words = found.vocabulary
    yield (
        "words",
        f"The tokenizer splits {words['split_share']:.1%} of the corpus's words and "
        f"{words['query_split_share']:.1%} of the queries' into four pieces or more; {words['queries_with_rare']:.0%} "
        "of the queries have a word that one to three documents have, which BM25 is good at, and "
        f"{words['queries_with_absent']:.0%} one that no document has.",
    )
    if found.late:
        yield "late interaction", found.late["sentence"]
    yield from (("judgements", sentence) for sentence in _judgements(found))
    power = found.power
    if power["deviation"] is None:
        yield (
            "queries",
            f"How many queries it takes to see {power['hoped']:g} is not known: {untold(power['queries'])}.",
        )
    else:
        yield (
            "queries",
            f"Queries differ by {power['deviation']:.3f} (standard deviation of paired differences), so {queries} show "
            f"gains of {power['smallest']:.3f} or more; a gain of {power['hoped']:g} takes about {power['needed']:,}.",
        )
    yield "examples", f"There are {count(found.examples, 'training query', 'training queries')}."
    if found.generation:
        yield "generation", found.generation
    if found.gain:
        gain = found.gain
        told = "better" if found.shown_gain else ("worse" if gain["p"] < LEVEL else "no significant difference")
        yield (
            "trial",
            f"A short fine-tuning changes {metric_label(gain['metric'])} by {signed(gain['difference'], 3)} "
            f"({bounds(gain['ci95'], 3)}, p = {probability(gain['p'])}) on "
            f"{count(gain['queries'], 'query', 'queries')} of dev, {told}.",
        )
    if found.estimates:
        here, *larger = found.estimates
        sizes = "; ".join(f"{one['documents']:,} documents take {duration(one['total'])}" for one in larger)
        yield (
            "cost",
            f"A fine-tuning takes about {duration(here['total'])} with embedding, as does each later one; {sizes}.",
        )


def _lengths(found: Findings) -> str:
    if not found.chunks:
        return "No document is longer than the model reads."
    tried = [_against_cutting(one) for one in found.chunks["settings"] if one["name"] != CUT_OFF]
    longer = f"{found.truncated:.0%} of the documents are longer than the model reads"
    return f"{longer}; against cutting them off: {'; '.join(tried)}." if tried else f"{longer}."


def _against_cutting(one: Mapping[str, Any]) -> str:
    verdict = "no significant difference"
    if _deciding_p(one) < LEVEL:
        verdict = "better" if one["difference"] > 0 else "worse"
    return f"{one['name']} tokens {signed(one['difference'], 3)} ({bounds(one['ci95'], 3)}), {verdict}"


def _deciding_p(one: Mapping[str, Any]) -> float:
    """Return the p-value of pieces against cutting off, corrected if several sizes are compared; 1 for cutting off."""
    p = one.get("p", 1) if one.get("p_holm") is None else one["p_holm"]
    return float(p)


def _judgements(found: Findings) -> Iterator[str]:
    labels = found.labels
    unjudged = labels["unjudged_at_10"][found.base.system]
    yield (
        f"A query has {labels['relevant_per_query']:.1f} relevant documents on average, and {unjudged:.0%} of the "
        "base's first ten are unjudged: they count as wrong, although some may be relevant."
    )
    if missed := labels["copies_not_judged"]:
        yield f"{count(missed, 'copy', 'copies')} of relevant documents are not judged relevant and count as wrong."
