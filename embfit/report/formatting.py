"""How numbers and names are written for people, the same in the terminal and in the page."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

LABELS = {
    "ndcg": "nDCG",
    "mrr": "MRR",
    "recall": "Recall",
    "precision": "Precision",
    "map": "MAP",
    "success": "Success",
}
NO_INTERVAL = "too few queries for an interval"
MINUS = "\N{MINUS SIGN}"


def metric_label(metric: str) -> str:
    """`ndcg@10` → `nDCG@10`."""
    name, _, cutoff = metric.partition("@")
    return f"{LABELS.get(name, name)}@{cutoff}" if cutoff else name


def plain(value: float) -> str:
    """Four decimals: 0.6451."""
    return f"{value:.4f}"


def signed(value: float, digits: int = 4) -> str:
    """A difference, with its sign: +0.0512, −0.0087; one that rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def interval(ci95: tuple[float, float] | None, digits: int = 4, between: str = " to ") -> str:
    """`+0.041 to +0.066`; a dash where queries are too few for an interval."""
    return between.join(signed(end, digits) for end in ci95) if ci95 else "–"


def certainty(ci95: tuple[float, float] | None, digits: int = 4) -> str:
    """`95 % interval +0.041 to +0.066` within a sentence, or that there is none."""
    return f"95 % interval {interval(ci95, digits)}" if ci95 else NO_INTERVAL


def bounds(ci95: tuple[float, float] | None, digits: int = 4) -> str:
    """`+0.041 to +0.066` within a sentence that has said of what, or that there is none."""
    return interval(ci95, digits) if ci95 else NO_INTERVAL


def probability(p: float) -> str:
    """A p-value to two digits: 0.56, 0.012, 0.0001."""
    return "below 0.0001" if p < 0.00005 else f"{p:.2g}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 query`, `1,391 queries`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def untold(queries: int) -> str:
    """Why queries do not tell how many it takes to see a difference: they are too few, or alike."""
    return "one query does not tell how much they vary" if queries < 2 else f"all {queries:,} differ by the same"


def cut_at_word(text: str, characters: int) -> str:
    """Return the beginning of a text, at most so many characters, cut at a blank, with a mark where it is cut."""
    if len(text) <= characters:
        return text
    beginning = text[:characters]
    whole_words = beginning if beginning[-1].isspace() else beginning.rsplit(None, 1)[0]  # a long word stays in part
    return f"{whole_words.rstrip()} …"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def breakable(text: str) -> Markup:
    """Let a long key or path go on in the next line after a dot, slash, underscore or comma."""
    return Markup(re.sub(r"(?<=[./_,=])(?=\w)", "<wbr>", str(escape(text))))
