"""The words of a text in any script, and the terms by which BM25 searches."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

import regex

SPLITTING = 4  # version of the rules below, for results stored under the words that a text was split into

_ASCII_WORD = re.compile(r"\w+")  # single letters too: "hepatitis B" is not "hepatitis C"
# Scripts that are written without spaces between words. Unicode assigns the prolonged sound marks to no single script.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ーｰ"
_CHARACTER = rf"[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]][\p{{Mn}}\p{{Mc}}]*"
_LETTER = rf"[[\p{{L}}\p{{N}}_]--[{_UNSPACED}]]"
# Letters and numbers with their marks: `\w` of `re` would cut हिन्दी into consonants, and that of `regex` matches more.
_PIECE = regex.compile(rf"(?:{_CHARACTER})+|{_LETTER}+(?:[\p{{Mn}}\p{{Mc}}]+{_LETTER}*)*", regex.VERSION1)
_CHARACTERS = regex.compile(_CHARACTER, regex.VERSION1)
_WORD_CHARACTER = regex.compile(rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]", regex.VERSION1)
_TURKISH = str.maketrans("Iİ", "ıi")
_DOTTED = "i̇"  # what `lower` makes of İ: i and a dot above


def words(text: str, language: str | None = None) -> list[str]:
    """Return the words of a text in lower case, in order.

    Letters keep their marks (vowel signs of Hindi or Tamil, accents, Arabic's short vowels), and different encodings of
    the same letter are equal (NFC). In scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer,
    Burmese), each character with its marks is a word.

    Args:
        text: the text.
        language: the language of the text, if it matters: "turkish" lowers I to ı.
    """
    return [word for piece in _pieces(text, language) for word in _characters(piece)]


def search_terms(text: str, language: str | None = None) -> list[str]:
    """Return the search terms of a text: its words, and in scripts without spaces each pair of adjacent characters.

    In those scripts a pair of characters is roughly a word and needs no dictionary; single characters match words of
    one character (Nie et al. 2000, "On the use of words and n-grams for Chinese information retrieval").

    Args:
        text: the text.
        language: as for `words`.
    """
    terms: list[str] = []
    for piece in _pieces(text, language):
        characters = _characters(piece)
        terms += characters
        terms += map("".join, pairwise(characters))
    return terms


def is_within_word(text: str, place: int) -> bool:
    """Return whether a place is inside a word; in scripts without spaces every character may end a word.

    Neither end of the text is inside a word.
    """
    return 0 < place < len(text) and bool(
        _WORD_CHARACTER.fullmatch(text[place - 1]) and _WORD_CHARACTER.fullmatch(text[place])
    )


def _pieces(text: str, language: str | None) -> Iterator[str]:
    """Yield words, and runs of characters in scripts without spaces."""
    if language == "turkish":
        text = text.translate(_TURKISH)
    text = text.lower()
    if text.isascii():
        yield from _ASCII_WORD.findall(text)
    else:
        yield from _PIECE.findall(unicodedata.normalize("NFC", text).replace(_DOTTED, "i"))


def _characters(piece: str) -> list[str]:
    """Return the characters of a run, each with its marks; a word is returned whole."""
    return [piece] if piece.isascii() else _CHARACTERS.findall(piece) or [piece]
