"""Collections from the Hugging Face Hub, in the layout of the BEIR and MTEB data sets."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from huggingface_hub.utils import logging as hub_logging

from embfit.data.files import BLOCK, Record
from embfit.data.identifiers import id_of
from embfit.data.qrels import Judgement, grade_of
from embfit.data.source import CollectionSource, choose_splits
from embfit.data.tables import TABLES_VERSION, SourceSplit, Tables
from embfit.data.write_collection import write_collection
from embfit.errors import ConfigError, UserError, first_line
from embfit.store import Store
from embfit.type_hints import Location

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

log = logging.getLogger(__name__)

QUERY_COLUMNS = ("query-id", "query_id")
DOCUMENT_COLUMNS = ("corpus-id", "corpus_id")
QRELS_CONFIGS = ("default", "qrels")  # the configurations that hold judgements, in older and in newer data sets


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
        qrels_config: the configuration that holds the judgements; None means `default`, or `qrels` where there is no
            `default`.
        revision: a branch, tag or commit of `name`; None is its main branch.
        splits: the splits of the judgements to read; None reads all.
        skip_unknown: whether judgements that name an unknown document or query are left out and counted; false makes
            the first of them an error.
    """

    name: Annotated[str | None, Location(required=True)] = None
    qrels: str | None = None
    corpus_config: str = "corpus"
    queries_config: str = "queries"
    qrels_config: str | None = None
    revision: str | None = None
    splits: list[str] | None = None
    skip_unknown: bool = True

    def read(self, store: Store) -> Tables:
        """Return the data set's tables; it is converted once, and read from the store until its files change."""
        if self.name is None:
            raise ConfigError("data=hub needs a data set: data.name=ORGANISATION/NAME, for example BeIR/scifact")
        judged = self.qrels or (f"{self.name}-qrels" if self.name.startswith("BeIR/") else self.name)
        corpus, queries = (self._texts(self.name, config) for config in (self.corpus_config, self.queries_config))
        found = self._load_judgements(judged, self.revision if judged == self.name else None)
        named = {name: (SourceSplit(name, f"{judged} {name}"), table) for name, table in found.items()}
        chosen = choose_splits(named, self.splits, judged)
        judgements = {split: _Judgements(_HubRows({own.place: table})) for split, (own, table) in chosen.items()}
        key = {
            "reader": "hub",
            "corpus": corpus.fingerprints,
            "queries": queries.fingerprints,
            "qrels": {split: lines.rows.fingerprints for split, lines in judgements.items()},
            "skip_unknown": self.skip_unknown,
        }
        entry = store.entry(
            "collection",
            key,
            lambda folder: write_collection(folder, corpus, queries, judgements, self.skip_unknown),
            version=TABLES_VERSION,
        )
        return Tables(
            self.name.rstrip("/").rpartition("/")[-1], entry, {split: own for split, (own, _) in chosen.items()}
        )

    def _texts(self, name: str, config: str) -> _HubRows:
        """Return the rows of all splits of a configuration: newer data sets cut texts as they cut judgements."""
        found = _load(name, config, self.revision)
        if len(found) == 1:
            return _HubRows({f"{name} {config}": table for table in found.values()})
        log.info("%s of %s has the splits %s, which are read as one", config, name, ", ".join(found))
        return _HubRows({f"{name} {config} {split}": table for split, table in found.items()})

    def _load_judgements(self, name: str, revision: str | None) -> DatasetDict:
        if self.qrels_config is not None:
            return _load(name, self.qrels_config, revision)
        default, newer = QRELS_CONFIGS
        try:
            return _load(name, default, revision)
        except _NoConfigError:
            return _load(name, newer, revision)


class _NoConfigError(UserError):
    """A data set has no configuration of the name."""


@dataclass(frozen=True)
class _HubRows:
    """The rows of tables as records; a text that stands in several tables alike is read once.

    Args:
        tables: by the name that error messages give each.
    """

    tables: Mapping[str, Dataset]

    def __str__(self) -> str:
        return next(iter(self.tables))

    @property
    def fingerprints(self) -> list[str]:
        """Identify the tables: `datasets` derives a fingerprint from the commit, the configuration and the files."""
        return [table._fingerprint for table in self.tables.values()]

    def __iter__(self) -> Iterator[Record]:
        seen: set[bytes] = set()
        for name, table in self.tables.items():
            for place, record in _records(name, table):
                if len(self.tables) > 1:
                    digest = _digest(record)
                    if digest in seen:
                        continue
                    seen.add(digest)
                yield place, record


def _records(name: str, table: Dataset) -> Iterator[Record]:
    for start in range(0, len(table), BLOCK):
        block = table[start : start + BLOCK]
        for at, values in enumerate(zip(*block.values(), strict=True), start + 1):
            yield f"{name}: row {at}", dict(zip(block, values, strict=True))


def _digest(record: Mapping[str, Any]) -> bytes:
    """Return 16 bytes that stand for a record's fields."""
    return hashlib.blake2b(repr(sorted(record.items())).encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True)
class _Judgements:
    """The rows of a table as judgements."""

    rows: _HubRows

    def __str__(self) -> str:
        return str(self.rows)

    def __iter__(self) -> Iterator[Judgement]:
        for place, record in self.rows:
            query, document = (id_of(place, record, *names) for names in (QUERY_COLUMNS, DOCUMENT_COLUMNS))
            yield Judgement(place, query, document, grade_of(place, "score", record.get("score")))


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
        said = first_line(error)
        if said.startswith("BuilderConfig"):
            raise _NoConfigError(
                f'cannot load "{config}" of {name}: {said}; name the configurations that it has with '
                "data.corpus_config, data.queries_config and data.qrels_config"
            ) from error
        raise UserError(f'cannot load "{config}" of {name}: {said}') from error


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
