"""The data of a fine-tuning on generated queries: what is held out, what trains, and what is refused in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from embfit.errors import ConfigError, UserError
from embfit.evaluator import Retrieval
from embfit.generator import DocumentChoice, ExtractiveGenerator, Filters, NoGenerator
from embfit.generator.protocol import Generates
from embfit.records import Collection
from embfit.review.decisions import Decisions
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.style import StyleExample
from embfit.task.generated_data import Generation
from tests.conftest import TEXTS, make_collection

FILTERS = Filters(similar=None, round_trip=None)


class Shown(ExtractiveGenerator):
    """Says that it was shown a query of the collection."""

    def example_pool(self, collection: Collection) -> list[StyleExample]:
        """Return the query of the tenth document."""
        return [StyleExample("asked", "read", None, query_row=10, document_row=10)]


@pytest.fixture
def generation(store: Store, tmp_path: Path) -> Iterator[Any]:
    def build(evaluation: Generates | NoGenerator, held_out: float = 0.25, **choice: Any) -> Generation:
        made = ExtractiveGenerator(2, documents=DocumentChoice(min_words=3, **choice), filters=FILTERS)
        never = lambda: pytest.fail("no model")  # noqa: E731
        return Generation(made, evaluation, Retrieval(), never, store, run, True, held_out, "cpu")

    with RunFolder(tmp_path / "run", {}, {}) as run:
        yield build


def test_labels_about_held_out_documents_do_not_train(generation: Any) -> None:
    queries = {f"q{row}": " ".join(text.split()[2:5]) for row, text in enumerate(TEXTS)}
    labels = {"train": {f"q{row}": {f"d{row}": 1} for row in range(12)}}
    found = generation(NoGenerator()).apply(
        make_collection({f"d{row}": text for row, text in enumerate(TEXTS)}, queries, labels)
    )
    judged = found.collection.qrels
    about = {split: {name for grades in judged[split].values() for name in grades} for split in judged}
    assert (len(about["test"]), len(about["dev"]), len(about["train"])) == (3, 3, 6)
    assert not about["train"] & (about["test"] | about["dev"])
    assert found.sections["generation"]["queries_left_out_of_training"] == 6
    assert found.collection.facts["test_queries_seen_in_train"] == 0


def test_what_the_writer_of_held_out_queries_was_shown_evaluates_nothing(
    generation: Any, small_collection: Collection
) -> None:
    shown = Shown(2, documents=DocumentChoice(min_words=3), filters=FILTERS)
    found = generation(shown).apply(small_collection)
    assert set(found.collection.qrels["test"]) == {"q11"}
    assert found.sections["generation"]["queries_left_out_of_evaluation"] == 1


def test_what_people_decided_overrides_the_filters(
    generation: Any, small_collection: Collection, tmp_path: Path
) -> None:
    found = generation(NoGenerator()).apply(small_collection)
    first, second = found.queries[0].id, found.queries[1].id
    decisions = Decisions(Path("review.jsonl"), {first: "drop", second: "keep", "none": "keep"})
    again = replace(generation(NoGenerator()), decisions=decisions).apply(small_collection)
    assert [query.id for query in again.queries] == [query.id for query in found.queries[1:]]
    told = again.sections["generation"]["review"]
    assert (told["kept"], told["dropped"], told["overruled"], told["unknown"]) == (1, 1, 1, 1)
    rows = {row["_id"]: row for row in pq.read_table(tmp_path / "run" / "queries.parquet").to_pylist()}
    assert (rows[first]["dropped_by"], rows[first]["review"]) == ("review", "drop")
    assert (rows[second]["dropped_by"], rows[second]["review"]) == (None, "keep")
    with pytest.raises(ConfigError, match=r"task\.review=review\.jsonl has decisions about generated queries"):
        replace(generation(NoGenerator()), generator=NoGenerator(), decisions=decisions).apply(small_collection)


def test_documents_that_are_gone_take_their_queries_with_them(generation: Any, tmp_path: Path) -> None:
    texts = {f"d{row}": text for row, text in enumerate(TEXTS)}
    first = generation(NoGenerator()).apply(make_collection(texts, {}, {}))
    assert "changes" not in first.sections["generation"]
    rows = pq.read_table(tmp_path / "run" / "queries.parquet").to_pylist()
    gone = sum(row["document_id"] in ("d1", "d2", "d3") and row["dropped_by"] is None for row in rows)
    del texts["d1"], texts["d2"]
    news = {"d3": "another text about kidneys and the liver", "new": "what a nose is"}
    again = make_collection({**texts, **news}, {}, {})
    second = generation(NoGenerator()).apply(again)
    found = second.sections["generation"]["changes"]
    assert found == {"new": 1, "changed": 1, "removed": 2, "queries_gone": gone}
    assert gone >= 3
    third = generation(NoGenerator()).apply(again)
    assert third.sections["generation"]["changes"] == dict.fromkeys(found, 0)


def test_documents_that_cannot_be_held_out_are_told_before_anything_is_written(
    generation: Any, small_collection: Collection, tmp_path: Path
) -> None:
    documents = make_collection({f"d{row}": text for row, text in enumerate(TEXTS)}, {}, {})
    with pytest.raises(ConfigError, match=r"task\.held_out=0 holds out no documents for test, and small has no such"):
        generation(NoGenerator(), 0.0).apply(documents)
    with pytest.raises(UserError, match="small has 2 documents that queries can be written about, which test and dev"):
        generation(NoGenerator(), limit=2, sample="random").apply(documents)
    assert not (tmp_path / "run" / "queries.parquet").exists()
    assert "dev" in generation(NoGenerator(), 0.0).apply(small_collection).collection.qrels
