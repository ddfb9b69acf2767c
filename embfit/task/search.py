"""`task=search`: shows the top documents of the base and the tuned model for one query, side by side."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embfit.compose.tasks import task
from embfit.errors import ConfigError, UserError
from embfit.index import ExactIndex
from embfit.model import Encoder, EncoderChoice, LateInteractionEncoder, embed, encoder_at
from embfit.model.latest_run import newest_encoder
from embfit.model.matched_words import match_words
from embfit.records import Collection, MatchedWords
from embfit.report.snippets import part, snippet
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.protocols import Data

log = logging.getLogger(__name__)

SHOWN = 160  # characters of a document that are shown
LEAST = 0.01  # the smallest share of a score for which a word is shown


@task(free_text=("query",), spreads=True)
def search(
    data: Data,
    model: EncoderChoice,
    store: Store,
    run: RunFolder,
    devices: Devices,
    query: str | None,
    tuned: str | None,
    runs: str,
    documents: Annotated[int, Field(ge=1)],
) -> None:
    """Show the top documents of a query; late interaction shows which words matched, too.

    Args:
        data: the collection searched.
        model: the base model.
        store: keeps embeddings, so that the second search is quick.
        run: the run folder, which records the search.
        devices: all of them encode.
        query: the query.
        tuned: a model folder; by default the newest encoder under `runs` from a finished fine-tuning on the same
            documents.
        runs: the folder of fine-tunings.
        documents: the number of documents to show.

    Raises:
        ConfigError: the query is missing.
    """
    if not query:
        raise ConfigError('task=search needs a query: query="how do I ..."')
    with run.stage("load data"):
        collection = data.load(store)
    models = {"base": model}
    if folder := Path(tuned) if tuned else newest_encoder(Path(runs), collection):
        models["tuned"] = encoder_at(str(folder), model)
        log.info("tuned is %s", folder)
    else:
        log.info(
            "no encoder under %s was fine-tuned on these documents, so the base model answers alone "
            "(tuned=FOLDER names one)",
            runs,
        )
    found, matched = {}, {}
    with run.stage("search"):
        for name, choice in models.items():
            encoder = choice.load(*devices.all, store=store)
            found[name] = _top(encoder, collection, query, min(documents, len(collection.corpus)), store)
            if isinstance(encoder, LateInteractionEncoder):
                matched[name] = _matched(encoder, collection, query, [row for row, _ in found[name]], store)
    Console().print(_side_by_side(query, found, collection, matched))


def _top(encoder: Encoder, collection: Collection, query: str, k: int, store: Store) -> list[tuple[int, float]]:
    documents = embed(encoder, collection, "document", store)
    question = encoder.embed([query], "query")
    try:
        scores, rows = ExactIndex(documents.vectors, documents.fingerprint).search(question, k, "searching")
    except ValueError as error:
        raise UserError(f"{encoder.source} cannot be searched: {error}") from error
    return list(zip(rows[0].tolist(), scores[0].tolist(), strict=True))


def _matched(
    encoder: LateInteractionEncoder, collection: Collection, query: str, rows: Sequence[int], store: Store
) -> list[MatchedWords]:
    """Return the words of documents that match words of a query."""
    return match_words(
        query,
        list(collection.document_texts(rows)),
        encoder.embed([query], "query"),
        embed(encoder, collection, "document", store).vectors.take(rows),
        encoder.spans("query"),
        encoder.spans("document"),
    )


def _side_by_side(
    query: str,
    found: Mapping[str, Sequence[tuple[int, float]]],
    collection: Collection,
    matched: Mapping[str, Sequence[MatchedWords]] | None = None,
) -> Table:
    table = Table(title=Text(query), title_justify="left", show_lines=True)
    table.add_column("", justify="right")
    for name in found:
        table.add_column(name, ratio=1)
    columns = [_cells(hits, collection, (matched or {}).get(name)) for name, hits in found.items()]
    for place, cells in enumerate(zip(*columns, strict=True), start=1):
        table.add_row(str(place), *cells)
    return table


def _cells(
    hits: Sequence[tuple[int, float]], collection: Collection, matched: Sequence[MatchedWords] | None
) -> list[Text]:
    texts = collection.document_texts([row for row, _ in hits])
    cells = []
    for place, ((row, score), text) in enumerate(zip(hits, texts, strict=True)):
        cell = Text(f"{score:.3f}  {collection.document_ids[row]}\n")
        if matched is None:
            cell.append(f"{text[:SHOWN]}{'…' if len(text) > SHOWN else ''}")
        else:
            for piece, share in snippet(text, matched[place], SHOWN):
                cell.append(piece, "bold" if share else None)
            cell.append(f"\n{_words(matched[place])}", "dim")
        cells.append(cell)
    return cells


def _words(matched: MatchedWords) -> str:
    """Format the matched words: `fever → temperature 31 % · own tokens 22 %`."""
    told = [
        f"{match.word} {share:.0%}"
        if match.found == match.word
        else f"{match.word} → {match.found or 'own token'} {share:.0%}"
        for match in matched.words
        if (share := part(match.share, matched)) >= LEAST
    ]
    return " · ".join([*told, f"own tokens {part(matched.own, matched):.0%}"])
