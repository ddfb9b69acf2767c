"""Words of a text in any script, as they are counted and compared, and the terms of them that BM25 searches by."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

import regex

SPLITTING = 4  # version of the rules below, for results stored under the words that a text was split into

_ASCII_WORD = re.compile(r"\w+")  # single letters too: "hepatitis B" is not "hepatitis C"
# Scripts that are written without spaces between words. The marks of lengthening belong to no script of their own.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ーｰ"
_CHARACTER = rf"[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]][\p{{Mn}}\p{{Mc}}]*"
_LETTER = rf"[[\p{{L}}\p{{N}}_]--[{_UNSPACED}]]"
# Letters and numbers with their marks: `\w` of `re` would cut हिन्दी into consonants, and that of `regex` takes in more.
_PIECE = regex.compile(rf"(?:{_CHARACTER})+|{_LETTER}+(?:[\p{{Mn}}\p{{Mc}}]+{_LETTER}*)*", regex.VERSION1)
_CHARACTERS = regex.compile(_CHARACTER, regex.VERSION1)
_WORD_CHARACTER = regex.compile(rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]", regex.VERSION1)
_TURKISH = str.maketrans("Iİ", "ıi")
_DOTTED = "i̇"  # what `lower` makes of İ: i and a dot above


def words(text: str, language: str | None = None) -> list[str]:
    """Return the words of a text in lower case, in order.

    Letters keep the marks that belong to them (vowel signs of Hindi or Tamil, accents, Arabic's short vowels), and a
    letter is the same however it was composed (NFC). Where a script has no spaces between words (Chinese, Japanese,
    Thai, Lao, Khmer, Burmese), each character with its marks is a word.

    Args:
        text: the text.
        language: the language of the text, if it matters: "turkish" lowers I to ı.
    """
    return [word for piece in _pieces(text, language) for word in _characters(piece)]


def search_terms(text: str, language: str | None = None) -> list[str]:
    """Return what a text is searched by: its words, and each two characters in a row of a script without spaces.

    A pair of characters is about a word there, and needs no dictionary; single characters find the words of one (Nie et
    al. 2000, "On the use of words and n-grams for Chinese information retrieval").

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
    """Say whether a word goes on across a place; in scripts without spaces each character may end one.

    No word goes on across either end of the text.
    """
    return 0 < place < len(text) and bool(
        _WORD_CHARACTER.fullmatch(text[place - 1]) and _WORD_CHARACTER.fullmatch(text[place])
    )


def _pieces(text: str, language: str | None) -> Iterator[str]:
    """Yield words, and runs of characters of scripts without spaces."""
    if language == "turkish":
        text = text.translate(_TURKISH)
    text = text.lower()
    if text.isascii():
        yield from _ASCII_WORD.findall(text)
    else:
        yield from _PIECE.findall(unicodedata.normalize("NFC", text).replace(_DOTTED, "i"))


def _characters(piece: str) -> list[str]:
    """Return the characters of a run with their marks; a word is one."""
    return [piece] if piece.isascii() else _CHARACTERS.findall(piece) or [piece]
