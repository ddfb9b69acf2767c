"""`task=search`: what base and tuned answer to one query, side by side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embfit.compose.tasks import task
from embfit.errors import ConfigError, UserError
from embfit.index import ExactIndex
from embfit.model import Encoder, EncoderChoice, embed, encoder_at
from embfit.model.folder import holds_cross_encoder
from embfit.records import Collection
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.run.record import read_headline, read_state, run_folders
from embfit.store import Store
from embfit.task.parts import Data

log = logging.getLogger(__name__)

SHOWN = 160  # characters of a document


@task(free_text=("query",))
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
    """Show the top documents of a query.

    Args:
        data: the collection searched.
        model: the base model.
        store: keeps embeddings, so that the second search is quick.
        run: records what was asked.
        devices: all of them encode.
        query: what to look for.
        tuned: a model folder; by default the newest encoder under `runs` that a finished fine-tuning on the same
            documents left.
        runs: where fine-tunings are.
        documents: how many to show.

    Raises:
        ConfigError: there is no query.
    """
    if not query:
        raise ConfigError('task=search needs a query: query="how do I ..."')
    with run.stage("load data"):
        collection = data.load(store)
    models = {"base": model}
    if folder := Path(tuned) if tuned else _newest_encoder(Path(runs), collection):
        models["tuned"] = encoder_at(str(folder), model)
        log.info("tuned is %s", folder)
    else:
        log.info(
            "no encoder under %s was fine-tuned on these documents, so the base model answers alone "
            "(tuned=FOLDER names one)",
            runs,
        )
    found = {}
    with run.stage("search"):
        for name, choice in models.items():
            encoder = choice.load(*devices.all)
            found[name] = _top(encoder, collection, query, min(documents, len(collection.corpus)), store)
    Console().print(_side_by_side(query, found, collection))


def _newest_encoder(runs: Path, collection: Collection) -> Path | None:
    """Return the newest encoder of a finished fine-tuning on the collection's documents."""
    finished = [run for run in run_folders(runs) if read_state(run) == "done"]
    models = [run / "model" for run in finished if (run / "model").is_dir() and not holds_cross_encoder(run / "model")]
    newest_first = sorted(models, key=lambda folder: folder.stat().st_mtime, reverse=True)
    return next((folder for folder in newest_first if _corpus(folder.parent) == collection.corpus_digest), None)


def _corpus(run: Path) -> str | None:
    """Return the digest of the documents that a run was about, None where its record does not say."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        return read_headline(run).get("corpus_sha256")
    return None


def _top(encoder: Encoder, collection: Collection, query: str, k: int, store: Store) -> list[tuple[int, float]]:
    documents = embed(encoder, collection, "document", store)
    question = encoder.embed([query], "query")
    try:
        scores, rows = ExactIndex(documents.vectors, documents.fingerprint).search(question, k, "searching")
    except ValueError as error:
        raise UserError(f"{encoder.source} cannot be searched: {error}") from error
    return list(zip(rows[0].tolist(), scores[0].tolist(), strict=True))


def _side_by_side(query: str, found: dict[str, list[tuple[int, float]]], collection: Collection) -> Table:
    table = Table(title=Text(query), title_justify="left", show_lines=True)
    table.add_column("", justify="right")
    for name in found:
        table.add_column(name, ratio=1)
    columns = [_cells(hits, collection) for hits in found.values()]
    for place, cells in enumerate(zip(*columns, strict=True), start=1):
        table.add_row(str(place), *cells)
    return table


def _cells(hits: Sequence[tuple[int, float]], collection: Collection) -> list[Text]:
    texts = collection.document_texts([row for row, _ in hits])
    return [
        Text(f"{score:.3f}  {collection.document_ids[row]}\n{text[:SHOWN]}{'…' if len(text) > SHOWN else ''}")
        for (row, score), text in zip(hits, texts, strict=True)
    ]
