"""The evaluator: which metrics are computed, from which judgements, and how systems are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from embfit.errors import ConfigError
from embfit.evaluator.comparison import compare, compare_all, most_changed
from embfit.evaluator.judging import FunnelSettings, Judging, judgements
from embfit.evaluator.metrics import Metric
from embfit.evaluator.production import production_gap
from embfit.evaluator.systems import EvaluationContext, LateModel, System, standard
from embfit.index.compressed import FORMATS, Format
from embfit.index.language import LanguageChoice
from embfit.model.encoder import Encoder
from embfit.model.encoder_choice import EncoderChoice
from embfit.model.late_interaction_choice import LateInteraction
from embfit.records import Collection, Comparison, Evaluation, Seed
from embfit.store import Store


@dataclass(frozen=True)
class Retrieval:
    """Retrieval metrics over a whole corpus, by query, with paired significance tests.

    Documents are ranked by (-score, id) and cut at `depth`. Of documents that tie at the cut, those with the lowest
    rows are kept.

    Args:
        split: the split whose judgements are reported.
        production: the split of a second query set that every system is measured on too, such as users' own queries.
        dev_split: the split that training validates on; never the one that it reports.
        dev_documents: how many documents a validation during training searches: the judged ones and a sample of the
            others, which is the same for every seed; None searches all.
        metrics: `ndcg@K`, `mrr@K`, `recall@K`, `precision@K`, `map@K` and `success@K`, the headline first.
        depth: how many documents are ranked for each query.
        dims: also evaluate the vectors cut to these dimensions, for Matryoshka models; they are embedded once.
        funnel: sizes of shortlists. Measures the quality, memory and time of each of `dims` and `formats`, with and
            without a shortlist that whole vectors rerank; None skips these measurements.
        formats: how the vectors that the funnel searches are stored.
        quality_kept: the share of the quality of whole vectors that the cheapest setting of the funnel must keep.
        costs: whether bytes and milliseconds of each encoder's index are measured; None measures them where
            `task=evaluate` compares late interaction.
        bm25: whether tasks that evaluate an encoder report BM25 beside it.
        language: chooses BM25's stemmer and stop words; auto is the documents' language, None uses neither.
        near_copy: Jaccard similarity of four-word sequences (documents) or words (queries) from which a text counts as
            a near-copy of one that training saw; None finds exact copies only.
        resamples: how many resamples the bootstrap draws, and how many random flips the randomisation test.
        seed: seeds both.
        systems: the systems that `task=evaluate` can measure, by name.

    Raises:
        ConfigError: a metric does not exist, or its cutoff exceeds `depth`.
    """

    split: str = "test"
    production: str | None = None
    dev_split: str = "dev"
    dev_documents: Annotated[int, Field(ge=1)] | None = 1000
    metrics: Sequence[str] = ("ndcg@10", "mrr@10", "recall@10", "recall@100")
    depth: Annotated[int, Field(ge=1)] = 100
    dims: Sequence[Annotated[int, Field(ge=1)]] | None = None
    funnel: Annotated[Sequence[Annotated[int, Field(ge=1)]], Field(min_length=1)] | None = None
    formats: Sequence[Format] = FORMATS
    quality_kept: Annotated[float, Field(gt=0, le=1)] = 0.99
    costs: bool | None = None
    bm25: bool = True
    language: LanguageChoice = "auto"
    near_copy: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    resamples: Annotated[int, Field(ge=1)] = 10_000
    seed: Seed = 0
    systems: Mapping[str, System] = field(default_factory=standard)

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ConfigError("evaluator.metrics: the list is empty; name a metric, such as ndcg@10")
        for metric in map(Metric.parse, self.metrics):
            if metric.cutoff > self.depth:
                raise ConfigError(
                    f"evaluator.metrics: the cutoff of {metric} exceeds evaluator.depth={self.depth}; raise the depth"
                )

    @property
    def judging(self) -> Judging:
        """The settings by which every system is judged."""
        return Judging(
            metrics=self.metrics,
            splits=self.splits,
            dev_split=self.dev_split,
            dev_documents=self.dev_documents,
            depth=self.depth,
            dims=self.dims,
            funnel=FunnelSettings(self.funnel, self.formats, self.quality_kept) if self.funnel else None,
            bm25=self.bm25,
            language=self.language,
            near_copy=self.near_copy,
            seed=self.seed,
        )

    def context(
        self,
        collection: Collection,
        store: Store,
        model: EncoderChoice,
        devices: tuple[str, ...] = ("auto",),
        load: Callable[[], Encoder] | None = None,
        names: Sequence[str] = (),
    ) -> EvaluationContext:
        """Return the context in which systems are measured on the reported split of a collection.

        Args:
            collection: has the documents, queries and judgements.
            store: keeps embeddings, indexes and rankings.
            model: the configured model.
            devices: where systems compute.
            load: returns the configured model's encoder; by default the context loads it.
            names: the systems that the task compares, if it lists them.
        """
        costs = self._compares_late(model, names) if self.costs is None else self.costs
        judging, systems = self.judging, self.systems
        return EvaluationContext(collection, self.split, judging, systems, store, model, devices, load, costs)

    def _compares_late(self, model: EncoderChoice, names: Sequence[str]) -> bool:
        """Return whether one of these systems is late interaction."""
        late = any(isinstance(self.systems.get(name), LateModel) for name in names)
        return late or ("base" in names and isinstance(model, LateInteraction))

    @property
    def splits(self) -> list[str]:
        """The splits that systems are measured on: the reported one, then production where there is one."""
        return [self.split, *([self.production] if self.production else [])]

    def check_splits(self, collection: Collection) -> None:
        """Check, before any work is done, that a collection can be judged on the splits that systems are measured on.

        Raises:
            UserError: there is no such split, or none of its queries has a relevant document.
        """
        judgements(collection, self.split, "evaluator.split")
        if self.production:
            judgements(collection, self.production, "evaluator.production")

    def gap(
        self, synthetic: Sequence[Evaluation], production: Sequence[Evaluation], collection: Collection
    ) -> dict[str, Any]:
        """Return the report's section `production`, by that key; empty without production queries."""
        if not production:
            return {}
        return {"production": production_gap(synthetic, production, collection, self.resamples, self.seed)}

    def compare(self, a: Evaluation, b: Evaluation) -> list[Comparison]:
        """Return the paired comparisons of `b` against `a`: all queries first, then each subset, in order of metrics.

        Raises:
            ValueError: they were not evaluated on the same queries and metrics.
        """
        return compare(a, b, self.resamples, self.seed)

    def compare_all(self, evaluations: Sequence[Evaluation]) -> list[Comparison]:
        """Return the comparisons of each further system against the first, p-values also corrected for their number.

        Raises:
            ValueError: they were not evaluated on the same queries and metrics.
        """
        return compare_all(evaluations, self.resamples, self.seed)

    def changes(self, evaluations: Sequence[Evaluation], count: int) -> list[dict[str, Any]]:
        """Return, for each further system against the first, the queries that changed most in the first metric."""
        metric = self.metrics[0]
        return [
            {"a": a.system, "b": b.system, "metric": metric, **most_changed(a, b, metric, count)}
            for a in evaluations[:1]
            for b in evaluations[1:]
        ]
