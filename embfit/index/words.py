"""Words of a text in any script, as BM25 counts them."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata

SPLITTING = 2  # version, for what is stored under the words that a text was split into
WIDE = 0xFFFF

_LETTERS = re.compile(r"\w+")  # single letters too: "hepatitis B" is not "hepatitis C"
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
    if language == "turkish":
        text = text.translate(_TURKISH)
    text = text.lower()
    if text.isascii():
        return _LETTERS.findall(text)
    text = unicodedata.normalize("NFC", text).replace(_DOTTED, "i")
    mark, word = _marked()
    return (word if mark.search(text) else _LETTERS).findall(text)


@functools.cache
def _marked() -> tuple[re.Pattern[str], re.Pattern[str]]:
    r"""Return the patterns of a mark, and of a word with its marks: `\w` alone would cut हिन्दी into consonants.

    Marks beyond 16 bits stand apart: they would keep `re` from looking up the others in a table.
    """
    marks = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    near, far = ("".join(chr(code) for code in marks if (code > WIDE) == beyond) for beyond in (False, True))
    mark = f"(?:[{near}]|(?=[{chr(WIDE + 1)}-{chr(sys.maxunicode)}])[{far}])"
    return re.compile(mark), re.compile(rf"\w+(?:{mark}+\w*)*")
