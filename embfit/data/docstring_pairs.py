"""A retrieval task made from documentation strings: find the explanation that belongs to a summary sentence.

The query is the summary sentence; the document is the rest of the documentation. Four rules keep the task honest:

- A document has its qualified name as title only if no word of the name is in its queries. Otherwise a model would
  only learn to match names. A summary that the rest repeats word for word is cut out of the rest, too.
- Documents that explain nearly the same (inherited and copied documentation) are merged into one document.
- Summaries of the same words ("Emit a record.") are merged into one query with all of their documents. The documents of
  a nearly identical summary are relevant with the lower grade.
- Summaries that are too vague to single anything out are left out, as are rests that explain nothing (examples,
  deprecation notes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from embfit.data.components import components
from embfit.data.docstrings import Docstring, prose
from embfit.data.similarity import shingles, similar_pairs

OWN, NEAR = 2, 1  # grades of a summary's own documentation, and of that of a nearly identical summary
SAME_TEXT = 0.8  # Jaccard similarity of the four-word sequences of two documents that are one
NEAR_SUMMARY = 0.8  # Jaccard similarity of the words of two summaries that are nearly identical

MIN_PROSE = 10  # words that a document must explain something with
MIN_CONTENT = 3  # words other than stop words in a query
MAX_QUERY = 40  # words in a query; longer "sentences" are tables and lists
MIN_LETTERS = 0.75  # share of letters and spaces in a query; formulas and grammars have less
SHARED_PREFIX = 4  # letters by which words of a name and of a query are taken for the same word (decoder, decoding)

_STOP_WORDS = re.compile("a|an|and|are|as|at|be|by|for|from|if|in|into|is|it|its|of|on|or|that|the|this|to|with")
_WORD = re.compile(r"\w+")
_PROSE_WORD = re.compile(r"[^\W\d_][^\W\d_'-]+")  # of at least two letters: no numbers, no `x`
_NAME_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@dataclass(frozen=True)
class DocstringPairs:
    """The task: rows of the two tables, the judgements, and what was left out or merged.

    Args:
        documents: the id (`json.decoder:JSONDecoder.decode`), title and text of each document.
        queries: the id and text of each query.
        relevant: query id → document id → grade.
        facts: how many texts were left out, merged or graded, by what happened to them.
    """

    documents: Sequence[tuple[str, str, str]]
    queries: Sequence[tuple[str, str]]
    relevant: Mapping[str, Mapping[str, int]]
    facts: Mapping[str, int]


def docstring_pairs(docstrings: Iterable[Docstring]) -> DocstringPairs:
    """Select pairs, merge and grade what answers a query equally well, and add the titles that give no query away."""
    found = {f"{one.module}:{one.name}": one for one in docstrings}
    clear = {name: one for name, one in found.items() if is_clear(one.summary)}
    rests = {name: _without(one.summary, one.rest) for name, one in clear.items()}
    texts = {name: rest for name, rest in rests.items() if len(_PROSE_WORD.findall(prose(rest))) >= MIN_PROSE}

    become = _merge_documents(texts)  # name → the document that its text has become
    ids: dict[tuple[str, ...], str] = {}
    queries: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    asking: dict[str, list[str]] = {}
    for name, document in become.items():
        summary = clear[name].summary
        query = ids.setdefault(content_words(summary), f"q:{name}")
        queries.setdefault(query, summary)
        relevant.setdefault(query, {})[document] = OWN
        asking.setdefault(document, []).append(summary)
    near = _grade_near_summaries(queries, relevant)

    titles = {name: _title(found[name], asking[name]) for name in asking}
    return DocstringPairs(
        documents=[(name, titles[name], texts[name]) for name in asking],
        queries=list(queries.items()),
        relevant=relevant,
        facts={
            "documentation_strings": len(found),
            "vague_summaries_left_out": len(found) - len(clear),
            "short_rests_left_out": len(clear) - len(texts),
            "documents_merged": len(texts) - len(asking),
            "summaries_merged": len(texts) - len(queries),
            "near_summaries_graded": near,
            "documents_with_name": sum(map(bool, titles.values())),
        },
    )


def content_words(text: str) -> tuple[str, ...]:
    """Return the words that carry meaning, in order, in lower case and without an s at the end."""
    words = (word.removesuffix("s") for word in _WORD.findall(text.casefold()) if not _STOP_WORDS.fullmatch(word))
    return tuple(word for word in words if word)


def is_clear(summary: str) -> bool:
    """Say whether a summary is a sentence that could single out one thing."""
    letters = sum(character.isalpha() or character.isspace() for character in summary)
    return (
        len(content_words(summary)) >= MIN_CONTENT
        and len(summary.split()) <= MAX_QUERY
        and letters >= MIN_LETTERS * len(summary)
    )


def gives_away(name: str, query: str) -> bool:
    """Say whether a dotted name and a query share a word, or a part of a word with at least three letters."""
    parts = {part.lower() for part in _NAME_PART.findall(name) if len(part) > 2}
    words = {word for word in content_words(query) if len(word) > 2}
    run = re.sub(r"[\W_]", "", name.lower())
    return any(word in run for word in words) or any(
        part in word or part[:SHARED_PREFIX] == word[:SHARED_PREFIX] for part in parts for word in words
    )


def _merge_documents(texts: Mapping[str, str]) -> dict[str, str]:
    """Map each name to the first name with nearly the same prose; differences in examples do not count."""
    names = list(texts)
    bonds: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
    for pair in similar_pairs([shingles(prose(text)) for text in texts.values()], SAME_TEXT):
        for row in pair:
            bonds[names[row]].append(pair)
    first = {name: group[0] for group in components(bonds) for name in group}
    return {name: first[name] for name in names}


def _grade_near_summaries(queries: Mapping[str, str], relevant: Mapping[str, dict[str, int]]) -> int:
    """Add each query's own documents to the judgements of nearly identical queries; return how many were added."""
    ids = list(queries)
    own = {query: [*documents] for query, documents in relevant.items()}
    for a, b in similar_pairs([frozenset(content_words(text)) for text in queries.values()], NEAR_SUMMARY):
        for query, other in ((ids[a], ids[b]), (ids[b], ids[a])):
            for document in own[other]:
                relevant[query].setdefault(document, NEAR)
    return sum(grade == NEAR for documents in relevant.values() for grade in documents.values())


def _title(one: Docstring, queries: Iterable[str]) -> str:
    name = f"{one.module}.{one.name}" if one.name else one.module
    return "" if any(gives_away(name, query) for query in queries) else name


def _without(summary: str, rest: str) -> str:
    if summary not in " ".join(rest.split()):
        return rest
    return re.sub(r"\s+".join(map(re.escape, summary.split())), "", rest).strip()
