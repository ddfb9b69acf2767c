"""Prepares the data of a fine-tuning with generated queries: generate, filter, hold out, mask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeAlias

from embfit.errors import ConfigError, UserError
from embfit.evaluator import Retrieval
from embfit.evaluator.judging import judgements
from embfit.generator import NoGenerator
from embfit.generator.dataset import HELD_OUT, QUERIES, evaluation_splits, write_queries
from embfit.generator.masking import mask_positives, masked_texts
from embfit.generator.pipeline import WrittenQueries, chosen_documents, filter_queries, journals_of
from embfit.generator.plan import SourceDocument
from embfit.generator.protocol import GeneratedQuery, Generates
from embfit.generator.summary import describe_generation, why_none_is_kept
from embfit.generator.training_queries import held_out_documents, with_queries, without_documents
from embfit.miner.miner import Mines, MinesWithScores
from embfit.model import Encoder
from embfit.records import Collection, Qrels, TrainingSet
from embfit.report.formatting import count
from embfit.review.decisions import Decisions, answers_of, apply_decisions
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.earlier_documents import EarlierDocuments
from embfit.type_hints import Having

log = logging.getLogger(__name__)

Writer: TypeAlias = NoGenerator | Annotated[Generates, Having("generate")]
"""What may write queries for a training: a generator, or none."""

TRAIN = "train"
SHOWN = 10  # number of kept queries in the report, and of queries that each filter drops


@dataclass(frozen=True)
class TrainingData:
    """The training and evaluation data of a fine-tuning.

    Args:
        collection: all documents, and queries by split; used for mining and measuring.
        sections: the report's sections about the generation, by key.
        sentences: sentences about the generation, shown below the result.
        queries: the generated training queries.
    """

    collection: Collection
    sections: Mapping[str, Any] = field(default_factory=dict)
    sentences: Sequence[str] = ()
    queries: Sequence[GeneratedQuery] = ()

    def mine(self, miner: Mines, encoder: Encoder, store: Store) -> TrainingSet:
        """Return the mined training set; positives whose query was cut from the document are replaced by masked copies.

        A teacher scores the masked positives.
        """
        mined = miner.mine(self.collection, encoder, store)
        masked = mask_positives(mined, self.queries, masked_texts(self.queries))
        if masked is mined or not isinstance(miner, MinesWithScores):
            return masked
        return miner.score_added(masked, self.collection, encoder, store)


@dataclass(frozen=True)
class Generation:
    """Generates queries for a fine-tuning and adds them to its data.

    Args:
        generator: writes the training queries.
        evaluation: writes the queries of synthetic splits; `NoGenerator` leaves them to `generator`.
        evaluator: names the splits.
        encoder: loads the base model.
        store: keeps requests, answers and embeddings.
        run: the run folder, which gets `queries.parquet`.
        labels: whether to keep the collection's own training pairs beside the generated ones.
        held_out: the share of the documents that each synthetic split gets.
        device: the device of a cross-encoder among the filters.
        decisions: reviewers' decisions about generated queries, which override the filters; None without a review.
    """

    generator: Writer
    evaluation: Writer
    evaluator: Retrieval
    encoder: Callable[[], Encoder]
    store: Store
    run: RunFolder
    labels: bool
    held_out: float
    device: str
    decisions: Decisions | None = None

    def apply(self, collection: Collection) -> TrainingData:
        """Return the data of the training; without a generator, the unchanged collection.

        Raises:
            ConfigError: only evaluation queries are to be written, or there are decisions but no generator.
            UserError: the reported split does not exist, no query is kept, or the generator fails.
        """
        if isinstance(self.generator, NoGenerator):
            if not isinstance(self.evaluation, NoGenerator):
                raise ConfigError("generator@evaluation writes held-out queries beside a generator: generator=NAME")
            if self.decisions is not None:
                raise ConfigError(
                    f"task.review={self.decisions.path} has decisions about generated queries, and nothing generates "
                    "any; name what wrote them: generator=NAME"
                )
            return TrainingData(collection)
        with self.run.stage("generate queries"):
            return self._extended(self.generator, collection)

    def _extended(self, generator: Generates, collection: Collection) -> TrainingData:
        pool = [example for writer in self._all_writers(generator) for example in writer.example_pool(collection)]
        shown = {collection.query_ids[example.query_row] for example in pool if example.query_row is not None}
        own, left = evaluation_splits(self._hidden(collection), shown, self.labels)
        lacking = self._lacking(collection, own)
        if not self.held_out and self.evaluator.split in lacking:
            raise ConfigError(
                f"task.held_out=0 holds out no documents for {self.evaluator.split}, and {collection.name} has no such "
                "queries, so nothing could be measured; task.held_out=0.1 does"
            )
        documents = chosen_documents(generator, pool, collection, self.encoder, self.store)
        earlier = EarlierDocuments.read(generator, self.store, self.run)
        changes = earlier.compare(documents, collection.name)
        held_out = held_out_documents(documents, lacking, self.held_out, generator.seed)
        apart = {row: split for split, rows in held_out.items() for row in rows}
        if len(apart) == len(documents):
            raise UserError(
                f"{collection.name} has {count(len(documents), 'document', 'documents')} that queries can be written "
                f"about, which {' and '.join(held_out)} would take; bring more, or lower generator.documents.min_words"
            )
        own, dropped = self._apart_from(collection, own, apart.keys())
        written, reviewed = self._write(generator, collection, documents, apart)
        generated: dict[str, list[GeneratedQuery]] = {split: [] for split in (TRAIN, *held_out)}
        for one in written:
            for query in one.kept:
                generated[apart.get(query.document.row, TRAIN)].append(query)
        facts = describe_generation(generator.name, written[0].made, written[0].marks, SHOWN)
        if not generated[TRAIN]:
            raise UserError(_nothing_kept(facts))
        generated = {split: queries for split, queries in generated.items() if queries}
        extended = with_queries(
            _told_apart(collection, own), own, generated, self._writers(generator.name, collection, own, held_out)
        )
        sizes = ", ".join(f"{split} {len(extended.qrels[split]):,}" for split in extended.qrels)
        log.info("%s: queries with generated ones: %s", collection.name, sizes)
        synthetic = extended.facts["synthetic_splits"]
        earlier.replace(documents, (query for one in written for query in one.kept))
        section = {
            **facts,
            **changes,
            **reviewed,
            "queries_left_out_of_evaluation": left,
            "queries_left_out_of_training": dropped,
            "synthetic_splits": synthetic,
        }
        for one in written[1:]:  # queries of `generator@evaluation`
            section["evaluation"] = describe_generation(one.generator, one.made, one.marks, SHOWN)
        return TrainingData(extended, {"generation": section}, list(self._said(synthetic)), generated[TRAIN])

    def _all_writers(self, generator: Generates) -> list[Generates]:
        return [generator] if isinstance(self.evaluation, NoGenerator) else [generator, self.evaluation]

    def _apart_from(
        self, collection: Collection, own: Mapping[str, Qrels], rows: AbstractSet[int]
    ) -> tuple[dict[str, Qrels], int]:
        """Return the own judgements without training pairs of held-out documents, and how many were dropped."""
        kept = dict(own)
        if TRAIN not in own or not rows:
            return kept, 0
        kept[TRAIN], dropped = without_documents(collection, own[TRAIN], rows)
        if dropped:
            log.info(
                "%s: left out of training, for documents held out: %s",
                *(collection.name, count(dropped, "training query", "training queries")),
            )
        return {split: grades for split, grades in kept.items() if grades}, dropped

    def _hidden(self, collection: Collection) -> Collection:
        """Return a collection without the dev split, if that was held out from labels that are hidden."""
        dev = self.evaluator.dev_split
        if self.labels or dev not in _held_out_from_train(collection):
            return collection
        return replace(collection, qrels={split: grades for split, grades in collection.qrels.items() if split != dev})

    def _lacking(self, collection: Collection, own: Mapping[str, Qrels]) -> list[str]:
        """Return which of the reported split and dev have no queries of the collection's own.

        Raises:
            UserError: a split was named explicitly, and the collection has only others.
        """
        split = self.evaluator.split
        if split not in own and split != Retrieval.split:
            judgements(collection, split, "evaluator.split")
        if self.evaluator.production:
            judgements(collection, self.evaluator.production, "evaluator.production")
        return [name for name in dict.fromkeys((split, self.evaluator.dev_split)) if name not in own]

    def _write(
        self,
        generator: Generates,
        collection: Collection,
        documents: Sequence[SourceDocument],
        apart: Mapping[int, str],
    ) -> tuple[list[WrittenQueries], dict[str, Any]]:
        """Generate queries, those about held-out documents by the evaluation generator if there is one.

        Returns:
            The queries of each generator with their marks, and sentences about the reviewers' decisions.
        """
        parts: list[tuple[Generates, Sequence[SourceDocument], str]] = [(generator, documents, QUERIES)]
        if not isinstance(self.evaluation, NoGenerator):
            train = [document for document in documents if document.row not in apart]
            others = [document for document in documents if document.row in apart]
            parts = [(generator, train, QUERIES), (self.evaluation, others, HELD_OUT)]
        filtered = []
        journals = journals_of(self.store, self.run.dir)
        for writer, about, _ in parts:
            made = writer.generate(collection, about, journals)
            found = filter_queries(writer, made, collection, self.encoder, self.store, journals, self.device)
            filtered.append(found)
        written, reviewed = apply_decisions(filtered, self.decisions)
        for found, (writer, about, name) in zip(written, parts, strict=True):
            answers = answers_of(self.decisions)
            write_queries(self.run.dir / name, found.made.queries, found.marks, writer.name, answers)
            log.info("%s", _told(found, len(about)))
        return written, reviewed

    def _writers(
        self, trained: str, collection: Collection, own: Mapping[str, Qrels], held_out: Mapping[str, set[int]]
    ) -> dict[str, str]:
        """Return the writer of each split's generated queries; `trained` names the one of train."""
        others = trained if isinstance(self.evaluation, NoGenerator) else self.evaluation.name
        if TRAIN in own:
            before = (collection.facts.get("queries_from") or {}).get(TRAIN, "the data's own")
            trained = f"{before} and {trained}"
        return {TRAIN: trained, **dict.fromkeys(held_out, others)}

    def _said(self, synthetic: Mapping[str, str]) -> Sequence[str]:
        split = self.evaluator.split
        if split not in synthetic:
            return []
        return [
            f"The queries of {split} are synthetic, written by {synthetic[split]} about documents held out from "
            "training. They show that training worked, but not what users will get; 100 to 200 judged real queries do."
        ]


def _held_out_from_train(collection: Collection) -> list[str]:
    return [name for name in str(collection.facts.get("held_out", "")).split(", ") if name]


def _told_apart(collection: Collection, own: Mapping[str, Qrels]) -> Collection:
    """Return a collection whose held-out splits name their origin, because train now comes from a generator."""
    facts = dict(collection.facts)
    source = (facts.get("queries_from") or {}).get(TRAIN)
    kept = [split for split in _held_out_from_train(collection) if split in own]
    if source is not None:
        facts["queries_from"] = {**dict.fromkeys(kept, source), **facts["queries_from"]}
    return replace(collection, facts={**facts, "held_out": ""})


def _told(written: WrittenQueries, documents: int) -> str:
    dropped = ", ".join(f"{mark} {count:,}" for mark, count in written.marks.counts.items() if count)
    kept = f"{len(written.kept):,} of {len(written.made.queries):,} queries about {documents:,} documents are kept"
    return f"{written.generator}: {kept}{f' (dropped: {dropped})' if dropped else ''}"


def _nothing_kept(facts: Mapping[str, Any]) -> str:
    reason = why_none_is_kept(facts)
    return f"no generated query is left to train on: {reason}; queries.parquet in the run folder has them"
