"""Whether the model's tokenizer knows the domain's words, and how rare the words of the queries are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from embfit.assess.hard_queries import document_frequency, is_rare
from embfit.evaluator.systems import EvaluationContext
from embfit.index.terms import words
from embfit.model import Encoder
from embfit.records import Collection
from embfit.tokens import tokenizer_lock

MANY = 4  # pieces from which on the tokenizer counts as not knowing a word
EXAMPLES = 10


def vocabulary_coverage(context: EvaluationContext) -> dict[str, Any]:
    """Count how the configured model's tokenizer splits words, and how many documents contain the queries' words.

    Words are counted in lower case, once per document and once per query.

    Returns:
        What `document_words` returns, and
        `query_words`: the number of words in the queries.
        `query_split_share`, `query_rare_share`, `query_absent_share`: the shares of the queries' words that fall into
        `MANY` or more pieces, that one to three documents contain, and that no document contains.
        `queries_with_rare`, `queries_with_absent`: the shares of queries with such a word.
    """
    collection = context.collection
    frequency = document_frequency(collection)
    asked = [set(words(text)) for text in collection.query_texts(context.rows)]
    pieces, unknown = _pieces(context.encoder, sorted({*frequency, *(word for query in asked for word in query)}))
    query_words = [word for query in asked for word in query]
    count = len(query_words) or 1
    return {
        **_of_documents(frequency, pieces, unknown),
        "query_words": len(query_words),
        "query_split_share": sum(pieces[word] >= MANY for word in query_words) / count,
        "query_rare_share": sum(is_rare(word, frequency) for word in query_words) / count,
        "query_absent_share": sum(word not in frequency for word in query_words) / count,
        "queries_with_rare": sum(any(is_rare(word, frequency) for word in query) for query in asked) / len(asked),
        "queries_with_absent": sum(any(word not in frequency for word in query) for query in asked) / len(asked),
    }


def document_words(encoder: Encoder, collection: Collection) -> dict[str, Any]:
    """Count how a tokenizer splits the words of documents, in lower case, each once per document.

    Returns:
        `words`: the number of different words.
        `pieces_per_word`: the mean number of pieces over the words.
        `split_share`, `unknown_share`: the shares of the words that fall into `MANY` or more pieces, and for which the
        tokenizer has no piece.
        `split_examples`: the split words that most documents contain.
    """
    frequency = document_frequency(collection)
    return _of_documents(frequency, *_pieces(encoder, sorted(frequency)))


def _of_documents(frequency: Counter[str], pieces: Mapping[str, int], unknown: AbstractSet[str]) -> dict[str, Any]:
    total = frequency.total() or 1
    split = [word for word, _ in frequency.most_common() if pieces[word] >= MANY]
    return {
        "words": len(frequency),
        "pieces_per_word": sum(pieces[word] * times for word, times in frequency.items()) / total,
        "split_share": sum(frequency[word] for word in split) / total,
        "unknown_share": sum(frequency[word] for word in unknown) / total,
        "split_examples": split[:EXAMPLES],
    }


def _pieces(encoder: Encoder, known: list[str]) -> tuple[dict[str, int], set[str]]:
    """Return the number of pieces of each word, and the words for which the tokenizer has no piece."""
    words = [f" {word}" for word in known]
    with tokenizer_lock(encoder.tokenizer):
        tokens = encoder.tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]
    strange = encoder.tokenizer.unk_token_id
    pieces = {word: len(ids) for word, ids in zip(known, tokens, strict=True)}
    return pieces, {word for word, ids in zip(known, tokens, strict=True) if strange is not None and strange in ids}
