"""The evaluator: exact search over the whole corpus, the same code for base, tuned and BM25."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field

from embfit.errors import ConfigError
from embfit.evaluator.comparison import compare, compare_all, most_changed
from embfit.evaluator.funnel import measure_funnel
from embfit.evaluator.hits import Hits, stored
from embfit.evaluator.judging import judge, judgements, query_rows
from embfit.evaluator.metrics import Metric, mean, per_query
from embfit.evaluator.production import production_gap
from embfit.evaluator.search import CorpusSearch
from embfit.evaluator.subsets import by_training
from embfit.evaluator.systems import BM25System, System, standard
from embfit.index.compressed import FORMATS, Cut, Format
from embfit.index.lexical import Language, index_words, words_key
from embfit.model.embed import embed
from embfit.model.encoder import Encoder
from embfit.model.fingerprint import frozen
from embfit.records import Collection, Comparison, Evaluation, Ranking, Seed
from embfit.store import Store


@dataclass(frozen=True)
class Retrieval:
    """Retrieval metrics over a whole corpus, by query, with paired significance tests.

    Documents are ranked by (-score, id) and cut at `depth`; of documents that tie at the very cut, those of the first
    rows are kept.

    Args:
        split: judgements that are reported.
        production: judgements of a second query set that every system is measured on too, such as users' own queries.
        dev_split: judgements that training looks at; never those that it reports.
        dev_documents: documents that a validation in training searches: the judged ones and a sample of the others,
            the same whatever the seed; None for all.
        metrics: `ndcg@K`, `mrr@K`, `recall@K`, `precision@K`, `map@K` and `success@K`, the headline first.
        depth: documents ranked for each query.
        dims: also evaluate the vectors cut to these dimensions, for Matryoshka models; they are embedded once.
        funnel: sizes of shortlists: also measure what `dims` and `formats` cost and reach, with such a shortlist ranked
            anew by whole vectors and without. None measures none of it.
        formats: of the vectors that the funnel searches.
        quality_kept: share of the quality of whole vectors that the cheapest setting of the funnel must keep.
        bm25: whether tasks that evaluate an encoder report BM25 beside it.
        language: BM25's stemmer and stop words; None takes words as they are.
        near_copy: share of four-word sequences (documents) or words (queries) in common from which a text that training
            saw counts as the same; None for exact copies alone.
        resamples: of the bootstrap, and random flips of the randomisation test.
        seed: of both.
        systems: what `task=evaluate` can measure, by name.

    Raises:
        ConfigError: no such metric, or one that reads deeper than `depth`.
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
    bm25: bool = True
    language: Language | None = "english"
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
                    f"evaluator.metrics: {metric} reads deeper than evaluator.depth={self.depth}; raise the depth"
                )

    def evaluate(
        self, system: str, encoder: Encoder, collection: Collection, store: Store, split: str | None = None
    ) -> Evaluation:
        """Embed corpus and queries, search exactly and measure.

        Embeddings and rankings are kept in the store under the encoder's fingerprint and the texts.

        Args:
            system: the encoder's name in reports.
            encoder: embeds.
            collection: what is searched and judged.
            store: keeps embeddings and rankings.
            split: other judgements than the configured ones.

        Raises:
            ConfigError: a dimension that the encoder does not have.
            UserError: there is no such split, none of its queries has a relevant document, or a score is no number.
        """
        split = split or self.split
        if wide := [dim for dim in self.dims or () if dim > encoder.width]:
            raise ConfigError(f"evaluator.dims: {wide[0]} exceeds the model's {encoder.width} dimensions; leave it out")
        rows = query_rows(collection, split)
        search = CorpusSearch(collection, self.depth)
        with frozen(encoder):
            made_by = {"queries": encoder.fingerprint("query"), "documents": encoder.fingerprint("document")}

            def at(name: str, dim: int) -> Evaluation:
                def find() -> Hits:
                    queries = embed(encoder, collection, "query", store, rows).vectors.rows
                    documents = embed(encoder, collection, "document", store).vectors.rows
                    return search.nearest(Cut(queries, dim)[:], Cut(documents, dim))

                key = {"search": "exact inner product", "encoder": made_by, "dimensions": dim}
                return self._found(name, collection, split, store, key, find)

            whole = at(system, encoder.width)
            cut = {dim: at(f"{system}@{dim}", dim) for dim in sorted(self.dims or ())}
            wanted = self.funnel and split == self.split
            return replace(whole, dims=cut, funnel=self._funnel(encoder, collection, split, store) if wanted else {})

    @property
    def splits(self) -> list[str]:
        """The splits that systems are measured on: the reported one, then production where there is one."""
        return [self.split, *([self.production] if self.production else [])]

    def check_splits(self, collection: Collection) -> None:
        """Hold the splits that systems are measured on to a collection, before any work is done.

        Raises:
            UserError: there is no such split, or none of its queries has a relevant document.
        """
        judgements(collection, self.split, "evaluator.split")
        if self.production:
            judgements(collection, self.production, "evaluator.production")

    def gap(
        self, synthetic: Sequence[Evaluation], production: Sequence[Evaluation], collection: Collection
    ) -> dict[str, Any]:
        """Return what production queries say of the systems, under the report's key; empty without production."""
        if not production:
            return {}
        return {"production": production_gap(synthetic, production, collection, self.resamples, self.seed)}

    def evaluate_bm25(
        self, collection: Collection, store: Store, split: str | None = None, words: BM25System | None = None
    ) -> Evaluation:
        """Measure BM25 on the same queries; a document that shares no word with the query is not retrieved.

        Index and rankings are kept in the store.

        Args:
            collection: what is searched and judged.
            store: keeps the index and rankings.
            split: other judgements than the configured ones.
            words: the formula; by default that of the system `bm25`.

        Raises:
            UserError: there is no such split, none of its queries has a relevant document, or no document has a word.
        """
        split = split or self.split
        rows = query_rows(collection, split)
        named = self.systems.get("bm25")
        words = words or (named if isinstance(named, BM25System) else BM25System())
        formula = (self.language, words.k1, words.b, words.method)
        reach = CorpusSearch(collection, self.depth).reach

        def find() -> Hits:
            return index_words(collection, store, *formula).search(list(collection.query_texts(rows)), reach)

        return self._found("bm25", collection, split, store, {"search": "bm25", **words_key(*formula)}, find)

    def judge(
        self,
        system: str,
        collection: Collection,
        split: str,
        ranking: Ranking,
        store: Store,
        facts: Mapping[str, Any] | None = None,
    ) -> Evaluation:
        """Measure a ranking of a split's queries, whatever made it.

        Raises:
            UserError: there is no such split, or none of its queries has a relevant document.
        """
        judgements(collection, split)
        parts = by_training(collection, split, self.near_copy, store)
        return judge(system, collection, split, ranking, self.metrics, facts, parts)

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

    def _found(
        self,
        system: str,
        collection: Collection,
        split: str,
        store: Store,
        key: Mapping[str, Any],
        find: Callable[[], Hits],
    ) -> Evaluation:
        """Measure what a search finds for a split's queries, or has found before under the same key."""
        rows, search = query_rows(collection, split), CorpusSearch(collection, self.depth)
        texts = {"corpus": collection.corpus_digest, "queries": collection.queries_digest}
        started = time.monotonic()
        hits, reused = stored(store, {**key, **texts, "rows": rows, "reach": search.reach}, find)
        ranking = search.ranking(rows, hits)
        facts = {"seconds": round(time.monotonic() - started, 3), "reused": reused}
        return self.judge(system, collection, split, ranking, store, facts)

    def _funnel(self, encoder: Encoder, collection: Collection, split: str, store: Store) -> dict[str, Any]:
        """Return what smaller vectors and shortlists cost and reach in the first metric."""
        metric, rows = self.metrics[0], query_rows(collection, split)
        search = CorpusSearch(collection, self.depth)

        def value(hits: Hits) -> float:
            ranking = search.ranking(rows, hits)
            return mean(per_query(ranking, collection.qrels[split], [metric])[metric].values())

        found = measure_funnel(
            embed(encoder, collection, "query", store, rows).vectors.rows,
            embed(encoder, collection, "document", store).vectors.rows,
            self.dims or (),
            self.formats,
            self.funnel or (),
            search.reach,
            metric,
            value,
            self.quality_kept,
        )
        return asdict(found)
