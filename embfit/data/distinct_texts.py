"""Texts that come with rows of queries and documents, each written to a table once, beside a corpus that is there."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from embfit.data.files import parted_place
from embfit.data.near_copies import NearCopies
from embfit.data.tables import CORPUS, DOCUMENTS, TableWriter
from embfit.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

BLOCK = 4096  # rows


class GivenText(NamedTuple):
    """A text as a row gives it, with its title and id where it has them.

    `tags` are what further columns of the table say of it, in their order.
    """

    text: str
    title: str = ""
    id: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def readable(self) -> bool:
        """Whether there is anything to read."""
        return bool(self.text.strip() or self.title.strip())


@dataclass(frozen=True)
class CorpusTexts:
    """Documents that are there whatever the rows say.

    Args:
        table: has the columns of `DOCUMENTS`.
        near_copies: the share of four-word sequences in common from which a row's document is taken for one of them;
            None takes equal texts alone.
    """

    table: Dataset
    near_copies: float | None

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """Yield the rows: id, title, text, source, position."""
        named = self.table.select_columns(list(DOCUMENTS))
        for start in range(0, len(named), BLOCK):
            yield from zip(*named[start : start + BLOCK].values(), strict=True)


class DistinctTexts:
    """Writes every distinct text once, under the first id that it is given or else a number.

    Args:
        table: where the texts go.
        prefix: what the numbers begin with.
        corpus: documents that are written first.
    """

    def __init__(self, table: TableWriter, prefix: str, corpus: CorpusTexts | None = None) -> None:
        self._table = table
        self._numbers = (f"{prefix}{number}" for number in itertools.count(1))
        self._ids: dict[bytes, str] = {}  # digest of the text with its title → its id
        self._titled: dict[bytes, list[str]] = {}  # digest of a text that has titles → the ids of all of them
        self._digests: dict[str, bytes] = {}  # any id → digest of the text that it stands for
        self._corpus: frozenset[str] = frozenset()
        self._found: dict[bytes, bool] = {}  # digest of a row's text that the corpus has → whether as a near copy
        self._near = None if corpus is None or corpus.near_copies is None else NearCopies(corpus.near_copies)
        self._kept: list[str] = []  # ids of the texts that `_near` keeps
        if corpus is not None:
            self._write(corpus)

    def __contains__(self, name: str) -> bool:
        """Whether an id stands for a text."""
        return name in self._digests

    @property
    def facts(self) -> dict[str, int]:
        """What a corpus and the rows have in common; nothing without a corpus."""
        if not self._corpus:
            return {}
        return {
            "documents_of_corpus": len(self._corpus),
            "row_documents_in_corpus": len(self._found),
            "row_documents_nearly_in_corpus": sum(self._found.values()),
            "row_documents_added_to_corpus": self._table.rows - len(self._corpus),
        }

    def id_of(self, given: GivenText, place: str) -> str:
        """Return the text's id, adding the text if it is new.

        Raises:
            UserError: the id that it comes with stands for another text.
        """
        digest = _digest(given)
        known = self._ids.get(digest) or self._in_corpus(given, digest)
        if known in self._corpus:
            self._found.setdefault(digest, False)
            digest = self._digests[known]
        name = given.id or known or next(name for name in self._numbers if name not in self._digests)
        if self._digests.setdefault(name, digest) != digest:
            raise UserError(
                f'{place}: the id "{name}" stands for another text in an earlier row; give each text an id of its own'
            )
        if known is None:
            self._add(name, given, place)
            known = self._ids[digest] = name
        return known

    def ids_of(self, untitled: GivenText, place: str) -> list[str]:
        """Return the ids of all texts that are this one, whatever their titles; it is added if there is none."""
        digest = _digest(untitled)
        known = [*([self._ids[digest]] if digest in self._ids else []), *self._titled.get(digest, ())]
        if known and known[0] in self._corpus:
            self._found.setdefault(digest, False)
        return known or [self.id_of(untitled, place)]

    def _in_corpus(self, given: GivenText, digest: bytes) -> str | None:
        """Return the document of the corpus that a text is, without its title or as a near copy."""
        if not self._corpus or given.title:
            return None
        titled = [name for name in self._titled.get(digest, ()) if name in self._corpus]
        if not titled and self._near is not None and (row := self._near.find(given.text)) is not None:
            self._found[digest] = True
            return self._kept[row]
        return titled[0] if titled else None

    def _add(self, name: str, given: GivenText, place: str) -> None:
        is_document = self._table.columns[: len(CORPUS)] == CORPUS
        texts = (given.title, given.text) if is_document else (given.text, *given.tags)
        source, position = parted_place(place)
        origin = (Path(source).name, position) if self._table.columns == DOCUMENTS else ()
        self._table.add((name, *texts, *origin), place)
        if given.title:
            self._titled.setdefault(_digest(GivenText(given.text)), []).append(name)

    def _write(self, corpus: Iterable[tuple[str, ...]]) -> None:
        for row in corpus:
            name, title, text = row[: len(CORPUS)]
            digest = _digest(GivenText(text, title))
            self._table.add(row, name)
            self._ids[digest], self._digests[name] = name, digest
            if title:
                self._titled.setdefault(_digest(GivenText(text)), []).append(name)
            if self._near is not None and self._near.first(text) is None:
                self._kept.append(name)
        self._corpus = frozenset(self._digests)


def _digest(given: GivenText) -> bytes:
    text = f"{given.title}\0{given.text}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
