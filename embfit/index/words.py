"""Words of a text in any script, as BM25 counts them."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata

SPLITTING = 2  # version, for what is stored under the words that a text was split into

WIDE = 0xFFFF

_ASCII_WORD = re.compile(r"\w+")  # single letters too: "hepatitis B" is not "hepatitis C"
_TURKISH = str.maketrans("Iİ", "ıi")
_DOTTED = "i̇"  # what `lower` makes of İ: i and a dot above


def words(text: str, language: str | None = None) -> list[str]:
    """Return the words of a text in lower case, in order.

    Letters go with the marks that belong to them (vowel signs of Hindi or Tamil, accents, Arabic's short vowels), and
    one letter is one however it was composed (NFC).

    Args:
        text: in a script that sets words apart by spaces or punctuation.
        language: "turkish" lowers I to ı.
    """
    if text.isascii() and language != "turkish":
        return _ASCII_WORD.findall(text.lower())
    if language == "turkish":
        text = text.translate(_TURKISH)
    return _word().findall(unicodedata.normalize("NFC", text).lower().replace(_DOTTED, "i"))


@functools.cache
def _word() -> re.Pattern[str]:
    r"""Return the pattern of a word: `\w` has no marks, which would cut हिन्दी into its consonants.

    Marks are looked for where letters end, and those beyond 16 bits apart: they would keep `re` from looking up the
    others in a table.
    """
    marks = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    near, far = ("".join(chr(code) for code in marks if (code > WIDE) == beyond) for beyond in (False, True))
    mark = f"(?:[{near}]|(?=[{chr(WIDE + 1)}-{chr(sys.maxunicode)}])[{far}])"
    return re.compile(rf"\w+(?:{mark}+\w*)*")
