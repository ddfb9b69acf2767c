"""Collections from the Hugging Face Hub, in the layout of the BEIR and MTEB data sets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from huggingface_hub.utils import logging as hub_logging

from embfit.data.files import BLOCK, Record, text_of
from embfit.data.qrels import Judgement, grade_of
from embfit.data.source import CollectionSource, choose_splits
from embfit.data.tables import TABLES_VERSION, Tables
from embfit.data.write_collection import write_collection
from embfit.errors import ConfigError, UserError
from embfit.hints import Location
from embfit.store import Store

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hub(CollectionSource):
    """A data set on the Hub with the configurations `corpus` and `queries`, and judgements.

    The judgements are either its configuration `default` (as in `mteb/scifact`) or a data set of their own
    (`BeIR/scifact-qrels` for `BeIR/scifact`), with the columns `query-id`, `corpus-id` and `score`.

    Args:
        name: the data set's name on the Hub, or a local folder with the same files.
        qrels: the data set with the judgements; None means NAME-qrels for `BeIR/…` and `name` itself for all others.
        corpus_config: the configuration that holds the documents.
        queries_config: the configuration that holds the queries.
        qrels_config: the configuration that holds the judgements.
        revision: a branch, tag or commit of `name`; None is its main branch.
        splits: the splits of the judgements to read; None reads all.
        skip_unknown: whether judgements that name an unknown document or query are left out and counted; false makes
            the first of them an error.
    """

    name: Annotated[str | None, Location(required=True)] = None
    qrels: str | None = None
    corpus_config: str = "corpus"
    queries_config: str = "queries"
    qrels_config: str = "default"
    revision: str | None = None
    splits: list[str] | None = None
    skip_unknown: bool = True

    def read(self, store: Store) -> Tables:
        """Return the data set's tables; it is converted once, and read from the store until its files change."""
        if self.name is None:
            raise ConfigError("data=hub needs a data set: data.name=ORGANISATION/NAME, for example BeIR/scifact")
        judged = self.qrels or (f"{self.name}-qrels" if self.name.startswith("BeIR/") else self.name)
        corpus = _HubRows(f"{self.name} {self.corpus_config}", self._only_split(self.name, self.corpus_config))
        queries = _HubRows(f"{self.name} {self.queries_config}", self._only_split(self.name, self.queries_config))
        found = _load(judged, self.qrels_config, self.revision if judged == self.name else None)
        judgements = {
            split: _Judgements(_HubRows(f"{judged} {split}", table))
            for split, table in choose_splits(found, self.splits, judged).items()
        }
        key = {
            "reader": "hub",
            # `datasets` derives a fingerprint from the commit, the configuration and the files
            "corpus": corpus.table._fingerprint,
            "queries": queries.table._fingerprint,
            "qrels": {split: lines.rows.table._fingerprint for split, lines in judgements.items()},
            "skip_unknown": self.skip_unknown,
        }
        entry = store.entry(
            "collection",
            key,
            lambda folder: write_collection(folder, corpus, queries, judgements, self.skip_unknown),
            version=TABLES_VERSION,
        )
        return Tables(self.name.rstrip("/").rpartition("/")[-1], entry)

    def _only_split(self, name: str, config: str) -> Dataset:
        found = _load(name, config, self.revision)
        if len(found) != 1:
            raise UserError(
                f'"{config}" of {name} has {len(found)} splits ({", ".join(found)}), and one is expected; name another '
                "configuration with data.corpus_config or data.queries_config"
            )
        return next(iter(found.values()))


@dataclass(frozen=True)
class _HubRows:
    """The rows of a table as records."""

    name: str
    table: Dataset

    def __str__(self) -> str:
        return self.name

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self.table), BLOCK):
            block = self.table[start : start + BLOCK]
            for at, values in enumerate(zip(*block.values(), strict=True), start + 1):
                yield f"{self.name}: row {at}", dict(zip(block, values, strict=True))


@dataclass(frozen=True)
class _Judgements:
    """The rows of a table as judgements."""

    rows: _HubRows

    def __str__(self) -> str:
        return str(self.rows)

    def __iter__(self) -> Iterator[Judgement]:
        for place, record in self.rows:
            grade = grade_of(record.get("score"))
            if grade is None:
                raise UserError(f'{place}: "score" must be a whole number, got {record.get("score")!r}')
            yield Judgement(place, text_of(place, record, "query-id"), text_of(place, record, "corpus-id"), grade)


def _load(name: str, config: str, revision: str | None) -> DatasetDict:
    import datasets  # takes a second
    from datasets.exceptions import DatasetsError

    path = Path(name).expanduser()
    log.info("loading %s of %s", config, name)
    try:
        with _quiet():
            return datasets.load_dataset(str(path) if path.is_dir() else name, config, revision=revision)
    except ConnectionError as error:
        reason = "HF_HUB_OFFLINE is set" if datasets.config.HF_HUB_OFFLINE else "the Hub does not answer"
        raise UserError(
            f'{reason}, and "{config}" of {name} is not in the local cache; load it once with a connection, '
            "or use files: data=beir data.path=DIR"
        ) from error
    except (FileNotFoundError, ValueError, RuntimeError, DatasetsError) as error:
        raise UserError(f'cannot load "{config}" of {name}: {str(error).splitlines()[0]}') from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the Hub's retries out of the log, and show its progress bars on a terminal only."""
    import datasets

    verbosity = hub_logging.get_verbosity()
    bars = datasets.are_progress_bars_disabled()
    hub_logging.set_verbosity(logging.ERROR)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()
