"""BM25 over stemmed words (package bm25s), with deterministic results."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import Stemmer

from embfit.errors import UserError
from embfit.index.files import read_settings, write_settings
from embfit.index.protocol import NOTHING, Hits, check_depth
from embfit.index.terms import SPLITTING, search_terms
from embfit.progress import progress, track
from embfit.ragged import Ragged, offsets_of
from embfit.records import Collection
from embfit.store import Store, digest
from embfit.vectors import LOWEST

if TYPE_CHECKING:
    import bm25s
    from scipy.sparse import csr_matrix

Language: TypeAlias = Literal[
    "arabic", "armenian", "basque", "catalan", "danish", "dutch", "english", "finnish", "french", "german", "greek",
    "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "nepali", "norwegian", "portuguese",
    "romanian", "russian", "serbian", "spanish", "swedish", "tamil", "turkish", "yiddish",
]  # fmt: skip
"""Languages with a Snowball stemmer."""

Method: TypeAlias = Literal["lucene", "robertson", "atire"]
"""Variants of the formula (Kamphuis et al. 2020) in which a document without any of the query's words scores zero."""

VERSION = 3  # of the stored index: 3 has its settings in index.json
PACKAGES = {name: version(name) for name in ("bm25s", "PyStemmer")}  # stored stems and scores depend on them
STEMS = 1 << 20  # words whose stems are remembered; bounded, since a server reads new words for ever


@dataclass(frozen=True)
class BM25Index:
    """An index of documents, addressed by row.

    Args:
        scorer: bm25s's sparse matrix of scores and its vocabulary.
        language: the language of the stemmer and stop words; None for neither.
        source: identifies the documents' texts (`Collection.corpus_digest`).
    """

    scorer: bm25s.BM25
    language: Language | None
    source: str = ""

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        language: Language | None = "english",
        k1: float = 1.5,
        b: float = 0.75,
        method: Method = "lucene",
        source: str = "",
    ) -> BM25Index:
        """Index documents, in memory proportional to their number of words.

        Args:
            texts: the documents, in row order; read once.
            language: chooses the Snowball stemmer and the list of stop words, if there is one. None uses neither. In
                scripts without spaces, characters and pairs of them are words.
            k1: the larger, the more the repetitions of a word count.
            b: how much long documents are penalised: 0 for not at all, 1 for in proportion to their length.
            method: variant of the formula.
            source: identifies the texts.

        Raises:
            UserError: no document has a word.
        """
        import bm25s  # takes a second to import, with scipy

        split = word_splitter(language)
        vocabulary: dict[str, int] = {}
        numbers = [  # arrays: lists of Python's integers would be several times as large
            array("i", [vocabulary.setdefault(word, len(vocabulary)) for word in split(text)]) for text in texts
        ]
        if not vocabulary:
            raise UserError(f"BM25 finds no word in any of the {len(numbers)} documents (language: {language})")
        scorer = bm25s.BM25(k1=k1, b=b, method=method)
        scorer.index((numbers, vocabulary), create_empty_token=False, show_progress=False)
        return cls(scorer, language, source)

    def __len__(self) -> int:
        """Return the number of documents."""
        return int(self.scorer.scores["num_docs"])

    @property
    def fingerprint(self) -> str:
        """Identifies the documents' texts and the formula."""
        formula = words_key(self.language, self.scorer.k1, self.scorer.b, self.scorer.method)
        return digest({"search": "words", "texts": self.source, **formula})

    def search(self, queries: Sequence[str], k: int, label: str | None = None) -> Hits:
        """Return each query's k documents of highest score, sorted by (-score, row).

        Only documents that share a word with the query are results: places beyond them have row -1 and score 0.

        Returns:
            scores [Q, k] float32 and rows [Q, k] int64.

        Raises:
            ValueError: k is not between 1 and the number of documents.
        """
        scores, rows, _ = self.search_and_score(queries, k, (), label)
        return scores, rows

    def search_and_score(
        self, queries: Sequence[str], k: int, lists: Sequence[Ragged], label: str | None = None
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Search, and return each query's scores of further documents, scoring the corpus once for each query.

        Args:
            queries: their texts.
            k: how many documents to return for each.
            lists: rows of further documents by query.
            label: the name that progress is shown under; None shows none.

        Returns:
            what `search` returns, and the scores of each of `lists`, flat ([values] float32).

        Raises:
            ValueError: k is not between 1 and the number of documents.
        """
        check_depth(k, len(self))
        scores = np.zeros((len(queries), k), np.float32)
        rows = np.full((len(queries), k), NOTHING, np.int64)
        looked_up = [np.empty(len(one.values), np.float32) for one in lists]
        with progress(label, total=len(queries), unit="queries") as advance:
            for query, text in enumerate(queries):
                every = self.scores(text)  # [N]
                found, their_scores = _best(every, k)
                rows[query, : len(found)] = found
                scores[query, : len(found)] = their_scores
                for one, into in zip(lists, looked_up, strict=True):
                    some = slice(one.offsets[query], one.offsets[query + 1])
                    into[some] = every[one.values[some]]
                advance()
        return scores, rows, looked_up

    def score(self, queries: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Return the scores of chosen documents: [Q, K] rows → [Q, K] float32; -inf where a row is negative."""
        scores = [self.scores(text)[chosen] for text, chosen in zip(queries, rows, strict=True)]
        return np.where(rows < 0, np.float32(LOWEST), np.array(scores, np.float32).reshape(rows.shape))

    def scores(self, text: str) -> np.ndarray:
        """Return every document's score for one query ([N] float32)."""
        known = [number for word in self._split(text) if (number := self.scorer.vocab_dict.get(word)) is not None]
        if not known:
            return np.zeros(len(self), np.float32)
        scores: np.ndarray = self.scorer.get_scores_from_ids(known)
        return scores

    def word_weights(self) -> csr_matrix:
        """Return what each word adds to each document's score ([documents, words], sparse)."""
        from scipy.sparse import csc_matrix

        found = self.scorer.scores
        shape = (len(self), len(found["indptr"]) - 1)
        return csc_matrix((found["data"], found["indices"], found["indptr"]), shape).tocsr()

    def word_counts(self, texts: Sequence[str]) -> csr_matrix:
        """Return how often each query contains each word of the documents ([queries, words], sparse).

        `word_counts(texts) @ word_weights().T` are the scores of all documents.
        """
        from scipy.sparse import csr_matrix

        known = self.scorer.vocab_dict
        found = [[known[word] for word in self._split(text) if word in known] for text in texts]
        words = np.array([number for row in found for number in row], np.int64)
        shape = (len(texts), len(self.scorer.scores["indptr"]) - 1)
        return csr_matrix((np.ones(len(words), np.float32), words, offsets_of([len(row) for row in found])), shape)

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        self.scorer.save(folder, show_progress=False)
        write_settings(folder, "words", {"language": self.language, "source": self.source})

    @classmethod
    def load(cls, folder: Path) -> BM25Index:
        """Open a saved index; its matrix is memory-mapped."""
        import bm25s

        settings = read_settings(folder)
        scorer = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        return cls(scorer, settings["language"], settings["source"])

    @cached_property
    def _split(self) -> Callable[[str], list[str]]:
        return word_splitter(self.language)


def words_key(language: Language | None, k1: float, b: float, method: Method) -> dict[str, Any]:
    """Return all that scores depend on besides the texts, for the store's keys."""
    formula = {"language": language, "k1": k1, "b": b, "method": method}
    return {**formula, "words": SPLITTING, "packages": PACKAGES}


def index_words(
    collection: Collection,
    store: Store,
    language: Language | None = "english",
    k1: float = 1.5,
    b: float = 0.75,
    method: Method = "lucene",
) -> BM25Index:
    """Return the BM25 index of a collection's documents, kept in the store."""
    key = {"corpus": collection.corpus_digest, **words_key(language, k1, b, method)}

    def build(folder: Path) -> None:
        texts = track(collection.document_texts(), "indexing words", total=len(collection.corpus), unit="documents")
        BM25Index.build(texts, language, k1, b, method, collection.corpus_digest).save(folder)

    return BM25Index.load(store.entry("words", key, build, version=VERSION))


def word_splitter(language: Language | None) -> Callable[[str], list[str]]:
    """Return a function that splits a text into stems, without stop words."""
    stem = lru_cache(STEMS)(Stemmer.Stemmer(language).stemWord) if language else str
    stop_words = frozenset(_stop_words(language))

    def split(text: str) -> list[str]:
        return [stem(word) for word in search_terms(text, language) if word not in stop_words]

    return split


def _stop_words(language: Language | None) -> Iterable[str]:
    """Return NLTK's list for the language; empty if there is none."""
    import bm25s

    name = "EN_PLUS" if language == "english" else str(language).upper()  # bm25s's plain EN is Lucene's short list
    found: Iterable[str] = getattr(bm25s.stopwords, f"STOPWORDS_{name}", ())
    return found


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and scores of at most k documents with a score above zero, by (-score, row)."""
    rows = np.flatnonzero(scores > 0)
    found = scores[rows]
    if len(rows) > k:
        least = np.partition(found, len(rows) - k)[len(rows) - k]
        rows, found = rows[found >= least], found[found >= least]  # more than k when the last rank is tied
    order = np.argsort(-found, kind="stable")[:k]
    return rows[order], found[order]
