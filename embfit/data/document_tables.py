"""Parsed documents written as the tables of a collection: boilerplate left out, cut into pieces, copies merged."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from embfit.data.formats.block import Block
from embfit.data.near_copies import NearCopies
from embfit.data.pieces import Piece, cut, headings_without_text, whole
from embfit.data.tables import DOCUMENTS, QUERIES, TableWriter, write_judgements
from embfit.errors import UserError
from embfit.text_digests import digest_text, document_text

BOILERPLATE_FILES = 5  # that share a paragraph, before it can be boilerplate
ID_DIGITS = 12  # of a piece's digest: enough for a million pieces of one file


class ParsedDocument(NamedTuple):
    """A document as its blocks.

    Args:
        name: what its pieces' ids begin with: the file's path within its folder, or the id that a table gives.
        source: the file's path within its folder, or the table's name.
        format: the name of its format (`HTML`); boilerplate is what documents of one format have in common.
        blocks: its text and headings, in order.
    """

    name: str
    source: str
    format: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Cutting:
    """How parsed documents are cleaned, cut into pieces and merged.

    Args:
        piece_tokens: the most tokens of a piece; None leaves documents whole.
        boilerplate: the share of a format's documents that a paragraph stands in, from which on it is left out; None
            leaves out none.
        near_copies: the share of four-word sequences in common from which a piece is merged into an earlier one; None
            merges equal ones alone.
    """

    piece_tokens: int | None
    boilerplate: float | None
    near_copies: float | None


@dataclass
class _Counts:
    """What was left out and merged on the way."""

    documents: int = 0
    without_text: int = 0
    asides: int = 0
    boilerplate: int = 0
    headings: int = 0
    wordless: int = 0
    copies: int = 0
    near_copies: int = 0
    formats: Counter[str] = field(default_factory=Counter)

    @property
    def facts(self) -> dict[str, object]:
        return {
            "files_read": dict(sorted(self.formats.items())),
            "asides_left_out": self.asides,
            "boilerplate_left_out": self.boilerplate,
            "headings_without_text_left_out": self.headings,
            "pieces_without_words_left_out": self.wordless,
            "copies_merged": self.copies,
            "near_copies_merged": self.near_copies,
        }


def write_documents(folder: Path, documents: Iterable[ParsedDocument], cutting: Cutting) -> dict[str, object]:
    """Write the corpus, empty queries and no judgements; return what was counted.

    Documents pass through a file, so that memory holds none of them: whether a paragraph is boilerplate is known when
    all have been read.

    Args:
        folder: where the tables go.
        documents: read once.
        cutting: how they are cleaned, cut and merged.

    Raises:
        UserError: two documents have one id, or a table's text cannot be written.
    """
    spool = folder / "blocks.jsonl"
    counts = _Counts()
    standing: dict[str, Counter[bytes]] = {}  # format → digest of a paragraph → documents that it stands in
    with spool.open("w+", encoding="utf-8") as file:
        for document in documents:
            _spool(file, document)
            counts.documents += 1
            counts.formats[document.format] += 1
            standing.setdefault(document.format, Counter()).update(
                {digest for block in document.blocks if (digest := _recognised(block))}
            )
        boilerplate = _boilerplate(standing, counts.formats, cutting.boilerplate)
        del standing
        file.seek(0)
        _write_pieces(folder / "corpus.arrow", map(_unspool, file), boilerplate, cutting, counts)
    spool.unlink()
    with TableWriter(folder / "queries.arrow", QUERIES):
        pass
    facts = counts.facts
    write_judgements(folder, {}, facts)
    return facts


def _write_pieces(
    path: Path,
    documents: Iterable[ParsedDocument],
    boilerplate: dict[str, frozenset[bytes]],
    cutting: Cutting,
    counts: _Counts,
) -> None:
    seen: set[bytes] = set()
    names: dict[str, str] = {}  # of documents → where the first of that name was
    near = None if cutting.near_copies is None else NearCopies(cutting.near_copies)
    with TableWriter(path, DOCUMENTS) as table:
        for document in documents:
            place = f"{document.source}, {document.blocks[0].position}" if document.blocks else document.source
            if (first := names.setdefault(document.name, place)) is not place:
                raise UserError(f'{place}: the id "{document.name}" is already used in {first}; ids must be unique')
            for piece, name in _pieces(document, boilerplate[document.format], cutting.piece_tokens, counts):
                text = document_text(piece.title, piece.text)
                digest = digest_text(text)
                if digest in seen:
                    counts.copies += 1
                    continue
                seen.add(digest)
                if near is not None and near.first(text) is not None:
                    counts.near_copies += 1
                    continue
                row = (name or f"{document.name}#{digest.hex()[:ID_DIGITS]}", piece.title, piece.text)
                table.add((*row, document.source, piece.position), place)


def _pieces(
    document: ParsedDocument, boilerplate: frozenset[bytes], tokens: int | None, counts: _Counts
) -> Iterator[tuple[Piece, str | None]]:
    """Yield a document's pieces, with the id of one that is the document itself."""
    own = [block for block in document.blocks if not block.aside]
    kept = [block for block in own if _recognised(block) not in boilerplate]
    counts.asides += len(document.blocks) - len(own)
    counts.boilerplate += len(own) - len(kept)
    counts.headings += 0 if tokens is None else headings_without_text(kept)
    pieces = list(whole(kept) if tokens is None else cut(kept, tokens))
    is_row = document.name != document.source
    name = document.name if tokens is None or (is_row and len(pieces) == 1) else None
    for piece in pieces:
        if any(map(str.isalpha, piece.text if tokens else piece.title + piece.text)):
            yield piece, name
        else:
            counts.wordless += 1


def _boilerplate(
    standing: dict[str, Counter[bytes]], documents: Counter[str], share: float | None
) -> dict[str, frozenset[bytes]]:
    """Return, for each format, the digests of paragraphs that stand in at least that share of its documents."""
    if share is None:
        return {form: frozenset() for form in standing}
    least = {form: max(BOILERPLATE_FILES, share * documents[form]) for form in standing}
    return {
        form: frozenset(digest for digest, count in counted.items() if count >= least[form])
        for form, counted in standing.items()
    }


def _recognised(block: Block) -> bytes | None:
    """Return what makes a paragraph the same in several files, whatever its numbers; None for headings and asides."""
    if block.level or block.aside:
        return None
    words = re.sub(r"\d+", "0", " ".join(unicodedata.normalize("NFKC", block.text).casefold().split()))
    return digest_text(words)


def _spool(file: IO[str], document: ParsedDocument) -> None:
    file.write(json.dumps(document) + "\n")


def _unspool(line: str) -> ParsedDocument:
    name, source, form, blocks = json.loads(line)
    return ParsedDocument(name, source, form, [Block(*block) for block in blocks])
