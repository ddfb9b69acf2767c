"""`judgements.jsonl`: grades that people gave to results, merged with the judgements that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embfit.data.files import JsonLines, text_of
from embfit.data.qrels import grade_of
from embfit.errors import UserError
from embfit.records import Qrels
from embfit.review.judgement_pool import JudgementPool


@dataclass(frozen=True)
class Conflict:
    """A pair that was judged in two ways.

    Args:
        query: its query's id.
        document: its document's id.
        grade: the grade that counts, since it came first.
        source: who gave it: the data, or file and line.
        other: the grade that does not.
        other_source: who gave that one.
    """

    query: str
    document: str
    grade: int
    source: str
    other: int
    other_source: str

    def __str__(self) -> str:
        """Say it in a line."""
        first = f"{self.grade} by {self.source}"
        return f"query {self.query}, document {self.document}: {first}, {self.other} by {self.other_source}"


@dataclass(frozen=True)
class MergedJudgements:
    """Judgements of a split, old and new.

    Args:
        qrels: all of them.
        added: grade → how many judgements are new.
        repeated: how many pairs were judged again, and likewise.
        skipped: how many were looked at and not judged.
        unknown: how many are about queries or documents that are not the run's.
        conflicts: pairs that were judged in different ways.
    """

    qrels: Qrels
    added: Mapping[int, int]
    repeated: int
    skipped: int
    unknown: int
    conflicts: Sequence[Conflict]


def merge_judgements(pool: JudgementPool, paths: Sequence[Path]) -> MergedJudgements:
    """Merge files of grades with the judgements of a split.

    Of two grades of one pair the first counts: those of the data come before those of files, and files in their order.

    Args:
        pool: has the split's judgements, and knows its queries and documents.
        paths: JSON lines with the keys `query_id`, `document_id` and `grade`, which is null where it was skipped.

    Raises:
        UserError: a file cannot be read or has no line, or a line is malformed; the message names file and line.
    """
    qrels = {query: dict(grades) for query, grades in pool.judged.items()}
    sources: dict[tuple[str, str], str] = {}
    added: dict[int, int] = {}
    repeated = skipped = unknown = 0
    conflicts = []
    for path in paths:
        empty = True
        for place, record in JsonLines(path):
            empty = False
            query, document = text_of(place, record, "query_id"), text_of(place, record, "document_id")
            if "grade" not in record:
                raise UserError(f'{place}: there is no "grade"; is this a file of `embfit judge`?')
            if record["grade"] is None:
                skipped += 1
                continue
            grade = grade_of(place, "grade", record["grade"])
            if grade < 0:
                raise UserError(f'{place}: "grade" must be 0 or more, got {grade}')
            if query not in qrels or document not in pool.collection.document_rows:
                unknown += 1
                continue
            before = qrels[query].get(document)
            if before is None:
                qrels[query][document] = grade
                sources[query, document] = place
                added[grade] = added.get(grade, 0) + 1
            elif before == grade:
                repeated += 1
            else:
                source = sources.get((query, document), "the data")
                conflicts.append(Conflict(query, document, before, source, grade, place))
        if empty:
            raise UserError(f"{path} has no judgements; export them on the page that `embfit judge RUN` writes")
    return MergedJudgements(qrels, dict(sorted(added.items())), repeated, skipped, unknown, conflicts)
