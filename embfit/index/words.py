"""Words of a text in any script, as BM25 counts them."""

from __future__ import annotations

import re
import unicodedata

import regex

SPLITTING = 3  # version of the rules below, for results stored under the words that a text was split into

_ASCII_WORD = re.compile(r"\w+")  # single letters too: "hepatitis B" is not "hepatitis C"
# Letters and numbers with their marks: `\w` of `re` would cut हिन्दी into consonants, and that of `regex` takes in more.
_WORD = regex.compile(r"[\p{L}\p{N}_]+(?:[\p{Mn}\p{Mc}]+[\p{L}\p{N}_]*)*")
_TURKISH = str.maketrans("Iİ", "ıi")
_DOTTED = "i̇"  # what `lower` makes of İ: i and a dot above


def words(text: str, language: str | None = None) -> list[str]:
    """Return the words of a text in lower case, in order.

    Letters keep the marks that belong to them (vowel signs of Hindi or Tamil, accents, Arabic's short vowels), and a
    letter is the same however it was composed (NFC).

    Args:
        text: a text in a script that separates words by spaces or punctuation.
        language: the language of the text, if it matters: "turkish" lowers I to ı.
    """
    if language == "turkish":
        text = text.translate(_TURKISH)
    text = text.lower()
    if text.isascii():
        return _ASCII_WORD.findall(text)
    found: list[str] = _WORD.findall(unicodedata.normalize("NFC", text).replace(_DOTTED, "i"))
    return found
