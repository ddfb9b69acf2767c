"""Negatives from someone else's ranking: a TREC run file, which every retrieval tool can write."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from embfit.data.files import content_digest
from embfit.data.trec import check_unknown, run_lines
from embfit.errors import ConfigError, UserError
from embfit.miner.candidates import Candidates, CandidateSource, Propose, ranks_of
from embfit.miner.examples import TrainingQueries
from embfit.miner.miner import RankedMiner
from embfit.model import Encoder
from embfit.ragged import Ragged
from embfit.records import Collection
from embfit.store import Store
from embfit.type_hints import Location


@dataclass(frozen=True)
class RunFileMiner(RankedMiner):
    """Mines from a run file (`query Q0 document rank score system`).

    `RankedMiner` documents the other parameters. Documents are ordered by score and then by row; the rank column is
    ignored, as in trec_eval. A positive that the file does not rank has no score, so under a margin no candidate
    passes.

    Args:
        path: the run file. It may also rank documents for other queries of the collection.
    """

    path: Annotated[str | None, Location(required=True)] = None

    def source(self, collection: Collection, encoder: Encoder, store: Store) -> CandidateSource:
        """Return the file's ranking as a source; the encoder is not used."""
        if self.path is None:
            raise ConfigError("miner=file needs a TREC run file: miner.path=FILE")
        path = Path(self.path).expanduser()

        def prepare(examples: TrainingQueries) -> Propose:
            ranking = read_ranking(path, examples, collection)

            def propose(part: TrainingQueries) -> Candidates:
                return _candidates(ranking, examples.places(part), part, self.depth)

            return propose

        return CandidateSource("file", {"depth": self.depth, "run": content_digest(path)}, prepare)


@dataclass(frozen=True)
class FileRanking:
    """A file's ranking of documents for the training queries.

    Args:
        rows: the ranked document rows of each training query, best first.
        scores: the score of each document in `rows.values`.
    """

    rows: Ragged
    scores: np.ndarray


def read_ranking(path: Path, examples: TrainingQueries, collection: Collection) -> FileRanking:
    """Read the lines of a run file that belong to training queries; each line takes 16 bytes of memory.

    Raises:
        UserError: a line is malformed, names an unknown query or document, or ranks a document a second time (the
            message names file and line); or no line belongs to a training query.
    """
    place_of = {query: place for place, query in enumerate(examples.queries.tolist())}
    owners, rows, lines = array("i"), array("i"), array("i")
    scores = array("f")
    unknown: dict[str, str] = {}
    for place, query_id, document_id, score in run_lines(path):
        query, document = collection.query_rows.get(query_id), collection.document_rows.get(document_id)
        if query is None:
            raise UserError(f"{place}: there is no query {query_id!r} in {collection.name}")
        if document is None:
            unknown.setdefault(document_id, f"{place}: query {query_id!r}")
        elif query in place_of:
            owners.append(place_of[query])
            rows.append(document)
            lines.append(int(place.rpartition(":")[2]))
            scores.append(score)
    check_unknown(path, unknown, collection)
    if not len(owners):
        raise UserError(f"{path} ranks documents for none of the {len(examples)} training queries")
    owner, row_of, score_of = (np.array(column) for column in (owners, rows, scores))
    _refuse_repeated(path, owner, row_of, np.array(lines), examples, collection)
    order = np.lexsort((row_of, -score_of, owner))
    return FileRanking(Ragged.from_owners(row_of[order], owner[order], len(examples)), score_of[order])


def _refuse_repeated(
    path: Path,
    owners: np.ndarray,
    rows: np.ndarray,
    lines: np.ndarray,
    examples: TrainingQueries,
    collection: Collection,
) -> None:
    order = np.lexsort((lines, rows, owners))
    again = order[1:][(np.diff(owners[order]) == 0) & (np.diff(rows[order]) == 0)]
    if len(again):
        first = again[lines[again].argmin()]
        query, document = int(examples.queries[owners[first]]), int(rows[first])
        raise UserError(
            f"{path}:{lines[first]}: document {collection.document_ids[document]!r} is ranked twice for query "
            f"{collection.query_ids[query]!r}"
        )


def _candidates(ranking: FileRanking, places: np.ndarray, part: TrainingQueries, depth: int) -> Candidates:
    found = ranking.rows.take(places)
    scored = Ragged(ranking.scores, ranking.rows.offsets).take(places)
    within = found.within
    kept = within < depth
    width = min(depth, int(found.lengths.max(initial=1)))  # at least one column, also if nothing is ranked
    rows = np.full((len(part), width), -1, np.int64)
    scores = np.zeros((len(part), width), np.float32)
    rows[found.owners[kept], within[kept]] = found.values[kept]
    scores[found.owners[kept], within[kept]] = scored.values[kept]
    return Candidates(
        source="file",
        rows=rows,
        ranks=ranks_of(rows),
        scores=scores,
        positive_scores=_scores_of(part.positives, found, scored.values),
        judged_scores=_scores_of(part.judged, found, scored.values),
    )


def _scores_of(wanted: Ragged, found: Ragged, scores: np.ndarray) -> np.ndarray:
    """Return the file's scores of each query's wanted documents ([values] float32); NaN if it does not rank them."""
    lists = [
        {row: place for place, row in enumerate(rows.tolist(), start)}
        for rows, start in zip(found.lists(), found.offsets[:-1].tolist(), strict=True)
    ]
    values = [
        scores[lists[owner][row]] if row in lists[owner] else np.nan
        for owner, row in zip(wanted.owners.tolist(), wanted.values.tolist(), strict=True)
    ]
    return np.array(values, np.float32)
