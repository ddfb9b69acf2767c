"""How many tokens a text is, near enough to cut it by, and the same whatever the model.

Pieces of documents must not depend on a model's tokenizer: two models would then search different documents, and
judgements of one model's pieces would be void for the other. Against the tokenizer of all-MiniLM-L6-v2, on texts of
installed packages, of Debian's and of embfit's own documentation, the estimate is 6 to 12 % high at the median, and at
most 8 % low for 95 % of the texts.
"""

from __future__ import annotations

import re

WORD_LETTERS = 5  # more than the mean of a token: pieces that are a little short lose nothing, longer ones are cut off
DIGITS = 2
_PART = re.compile(
    r"(?P<wide>[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff])"
    r"|(?P<digits>\d+)|(?P<word>[^\W\d_]+)|(?P<mark>[^\w\s]|_)"
)


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a subword tokenizer makes of a text.

    A short word is one token, a longer one has another for every five letters; so has a number for every two digits.
    A mark is one, and so is a character of Chinese, Japanese or Korean.
    """
    return sum(map(_tokens, _PART.finditer(text)))


def _tokens(part: re.Match[str]) -> int:
    match part.lastgroup:
        case "word":
            return -(-len(part[0]) // WORD_LETTERS)
        case "digits":
            return -(-len(part[0]) // DIGITS)
    return 1
