"""Whether the model's tokenizer knows the domain's words, and how rare the words of the queries are."""

from __future__ import annotations

from collections import Counter
from typing import Any

from embfit.evaluator.systems import EvaluationContext
from embfit.index.words import words
from embfit.model import Encoder
from embfit.tokens import tokenizer_lock

MANY = 4  # pieces that a word falls into when the tokenizer does not know it
RARE = 3  # documents, at most, that have a rare word
EXAMPLES = 10


def cover(context: EvaluationContext) -> dict[str, Any]:
    """Count how the configured model's tokenizer splits words, and how many documents have the queries' words.

    Words of the text are counted once a document and once a query, in lower case.

    Returns:
        `words` (different ones in the corpus), `pieces_per_word` (mean over the corpus), `split_share` (of the corpus's
        words, by documents, that fall into `MANY` or more pieces), `unknown_share`, `split_examples` (those in most
        documents), `query_words`, `query_split_share`, `query_rare_share` (of the queries' words, those in 1 to `RARE`
        documents), `query_absent_share` (in none), and `queries_with_rare` and `queries_with_absent` (shares of queries
        that have such a word).
    """
    collection = context.collection
    frequency: Counter[str] = Counter()
    for text in collection.document_texts():
        frequency.update(set(words(text)))
    asked = [set(words(text)) for text in collection.query_texts(context.rows)]
    pieces, unknown = _pieces(context.encoder, sorted({*frequency, *(word for query in asked for word in query)}))
    total = frequency.total() or 1
    query_words = [word for query in asked for word in query]
    count = len(query_words) or 1
    split = [word for word, _ in frequency.most_common() if pieces[word] >= MANY]
    return {
        "words": len(frequency),
        "pieces_per_word": sum(pieces[word] * times for word, times in frequency.items()) / total,
        "split_share": sum(frequency[word] for word in split) / total,
        "unknown_share": sum(frequency[word] for word in unknown) / total,
        "split_examples": split[:EXAMPLES],
        "query_words": len(query_words),
        "query_split_share": sum(pieces[word] >= MANY for word in query_words) / count,
        "query_rare_share": sum(1 <= frequency[word] <= RARE for word in query_words) / count,
        "query_absent_share": sum(word not in frequency for word in query_words) / count,
        "queries_with_rare": sum(any(1 <= frequency[word] <= RARE for word in query) for query in asked) / len(asked),
        "queries_with_absent": sum(any(word not in frequency for word in query) for query in asked) / len(asked),
    }


def _pieces(encoder: Encoder, known: list[str]) -> tuple[dict[str, int], set[str]]:
    """Return how many pieces each word falls into, and which words the tokenizer has no pieces for."""
    words = [f" {word}" for word in known]
    with tokenizer_lock(encoder.tokenizer):
        tokens = encoder.tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]
    strange = encoder.tokenizer.unk_token_id
    pieces = {word: len(ids) for word, ids in zip(known, tokens, strict=True)}
    return pieces, {word for word, ids in zip(known, tokens, strict=True) if strange is not None and strange in ids}
