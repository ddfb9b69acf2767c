"""Documents cut into pieces that a model reads whole, and searched by their best piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embfit.evaluator.systems import EvaluationContext
from embfit.index.protocol import Hits
from embfit.model import Encoder, embed
from embfit.ragged import offsets_of
from embfit.records import Collection, Evaluation
from embfit.tokens import tokenizer_lock
from embfit.vectors import Vectors

FEWEST = 16  # tokens of text in a piece, however long the title in front of it
VERSION = 3  # of the store's pieces: 2 ends them before a word, 3 says where the last document's end
SCORES = 1 << 24  # query and piece pairs scored at once (64 MiB)


@dataclass(frozen=True)
class Pieces:
    """Pieces of documents, those of one after those of another.

    Args:
        texts: the pieces' texts, each with its document's title in front.
        starts: [N + 1] int64; document i has the pieces `texts[starts[i]:starts[i + 1]]`.
    """

    texts: list[str]
    starts: np.ndarray


def cut(encoder: Encoder, collection: Collection, rows: Sequence[int], tokens: int) -> Pieces:
    """Cut documents into pieces of at most so many tokens, title, prompt and special tokens included.

    A piece ends before a word, without overlap; within one only where the word alone is longer, or the language has no
    spaces. A document that is short enough is one piece.
    """
    texts: list[str] = []
    counts = []
    own = encoder.tokenizer.num_special_tokens_to_add() + _length(encoder, encoder.prompt("document"))
    for row in rows:
        document = collection.corpus[int(row)]
        title, text = document["title"], document["text"]
        room = max(FEWEST, tokens - own - (_length(encoder, title) if title else 0))
        pieces = _windows(encoder, text, room)
        counts.append(len(pieces))
        texts += [f"{title} {piece}" if title else piece for piece in pieces]
    return Pieces(texts, offsets_of(counts))


def _windows(encoder: Encoder, text: str, tokens: int) -> list[str]:
    with tokenizer_lock(encoder.tokenizer):
        spans = encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = spans["offset_mapping"]
    if len(offsets) <= tokens:
        return [text]
    windows = []
    first = 0
    while first < len(offsets):
        last = min(first + tokens, len(offsets))
        if last < len(offsets):  # a word cut in two would be read as other tokens, and more of them
            places = range(last, first, -1)
            last = next((place for place in places if text[offsets[place][0] - 1].isspace()), last)
        windows.append(text[offsets[first][0] : offsets[last - 1][1]])
        first = last
    return windows


def _length(encoder: Encoder, text: str) -> int:
    if not text:
        return 0
    with tokenizer_lock(encoder.tokenizer):
        return len(encoder.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def evaluate_pieces(name: str, context: EvaluationContext, rows: np.ndarray, tokens: int) -> Evaluation:
    """Measure the configured model on some documents in pieces; a document scores as its best piece does.

    Args:
        name: the system's name.
        context: has the collection, its queries and the model.
        rows: the rows of the documents searched, ascending.
        tokens: how many tokens a piece has, at most.
    """
    encoder, collection = context.encoder, context.collection
    key = {
        "encoder": encoder.fingerprint("document"),
        "corpus": collection.corpus_digest,
        "rows": rows.tolist(),
        "tokens": tokens,
        "fewest": FEWEST,
    }

    def build(folder: Path) -> None:
        pieces = cut(encoder, collection, rows.tolist(), tokens)
        np.save(folder / "starts.npy", pieces.starts)
        np.save(folder / "matrix.npy", encoder.encode(pieces.texts, "document"))

    folder = context.store.entry("pieces", key, build, version=VERSION)
    starts, matrix = np.load(folder / "starts.npy"), np.load(folder / "matrix.npy", mmap_mode="r")
    return evaluate_best_piece(name, context, rows, Vectors(matrix, starts))


def evaluate_best_piece(
    name: str, context: EvaluationContext, rows: np.ndarray, documents: Vectors[np.ndarray]
) -> Evaluation:
    """Rank documents by the highest score among their pieces and measure.

    Args:
        name: the system's name.
        context: has the queries and the model.
        rows: [N] document rows.
        documents: the vectors of the documents, one for each of their pieces.
    """
    search = context.search
    queries = embed(context.encoder, context.collection, "query", context.store, context.rows).vectors
    pieces = len(documents.rows)
    step = max(1, SCORES // pieces)
    found: list[Hits] = []
    for first in range(0, len(queries), step):
        best = queries.part(first, first + step).scores(documents)  # [q, N]
        top = np.argsort(-best, axis=1, kind="stable")[:, : search.search_depth]
        found.append((np.take_along_axis(best, top, axis=1), rows[top]))
    scores, ranked = (np.concatenate(part) for part in zip(*found, strict=True))
    ranking = search.ranking(context.rows, (scores, ranked))
    return context.judge(name, ranking, {"pieces": pieces, "documents": len(rows)})
