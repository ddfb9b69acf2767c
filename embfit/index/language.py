"""The language of a collection's documents, told from their texts (py3langid: Lui and Baldwin 2012, "langid.py")."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from embfit.atomic_files import write_text
from embfit.index.lexical import Language
from embfit.records import Collection
from embfit.store import Store

log = logging.getLogger(__name__)

LanguageChoice: TypeAlias = Language | Literal["auto"] | None
"""A language with a Snowball stemmer; `auto` for that of the documents; None for words as they are."""

DOCUMENTS = 200  # that are looked at, spread over the corpus
NO_LANGUAGE = "zxx"  # what ISO 639-2 calls a text without linguistic content
CHARACTERS = 1000  # of each
MOST = 0.6  # share of the documents that have one language, from which on it is the corpus's

SNOWBALL: dict[str, Language] = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian",
    "id": "indonesian", "it": "italian", "lt": "lithuanian", "nb": "norwegian", "ne": "nepali", "nl": "dutch",
    "nn": "norwegian", "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian",
    "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
"""Languages with a stemmer, by their ISO 639-1 code."""


@dataclass(frozen=True)
class DetectedLanguage:
    """The language that most documents of a sample have.

    Args:
        code: its ISO 639-1 code.
        share: the share of the sample.
    """

    code: str
    share: float

    @property
    def is_clear(self) -> bool:
        """Whether it is the corpus's, and not one of several."""
        return self.share >= MOST


def detect_language(collection: Collection, store: Store) -> DetectedLanguage:
    """Return the language of most documents of a sample; told once for each corpus, and found in the store again."""
    key = {"corpus": collection.corpus_digest, "detector": version("py3langid"), "documents": DOCUMENTS}

    def build(folder: Path) -> None:
        from py3langid import classify  # loads a model of some megabytes

        rows = np.linspace(0, len(collection.corpus) - 1, min(DOCUMENTS, len(collection.corpus))).astype(int)
        codes = Counter(str(classify(text[:CHARACTERS])[0]) for text in collection.document_texts(rows.tolist()))
        code, count = codes.most_common(1)[0]
        write_text(folder / "language.json", json.dumps({"code": code, "share": count / len(rows)}))

    found = json.loads((store.entry("language", key, build, version=1) / "language.json").read_text(encoding="utf-8"))
    return DetectedLanguage(found["code"], found["share"])


def language_of(choice: LanguageChoice, collection: Collection, store: Store, setting: str) -> Language | None:
    """Return the language that words are stemmed in.

    Args:
        choice: what was asked for; `auto` is the documents' language, or None where there is no stemmer for it or the
            documents have several languages.
        collection: has the documents.
        store: keeps what was told of them.
        setting: names `choice` in what is said.
    """
    if choice != "auto":
        return choice
    found = detect_language(collection, store)
    language = SNOWBALL.get(found.code) if found.is_clear else None
    if language != "english":
        one = "no language (numbers, or code)" if found.code == NO_LANGUAGE else f"one language ({found.code})"
        many = f"{found.share:.0%} of the documents are in {one}"
        used = f"the stemmer and stop words for {language}" if language else "words as they are"
        log.info("%s: BM25 uses %s (%s)", many, used, setting)
    return language
