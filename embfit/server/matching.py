"""Shows which words of found documents a query matched by late interaction, and their shares of the score."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from embfit.bundle import Hit
from embfit.model import LateInteractionEncoder
from embfit.model.matched_words import match_words
from embfit.records import MatchedWords
from embfit.server.errors import Refusal
from embfit.server.request import Call
from embfit.server.service import Service
from embfit.text_digests import document_text


def check_matching(call: Call) -> None:
    """Check that a call's version can show matched words.

    Raises:
        Refusal: it has one vector for each text, or keeps no texts.
    """
    live = call.live
    if live.bundle.encoder.single:
        raise Refusal(
            400, f"{live.label} has one vector for each text, which no word can be told from; leave out matches",
            param="matches",
        )  # fmt: skip
    if not live.bundle.manifest.documents.texts:
        raise Refusal(400, f"{live.label} keeps no texts to mark words in; leave out matches", param="matches")


async def matched_words(service: Service, call: Call, query: str, hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """Return the matched words of each found document, in the form of `schemas.MatchedDocument`.

    The documents are encoded again, because an index may have merged the vectors of several words.

    Raises:
        Refusal: as `Service.embed`.
    """
    if not hits:
        return []
    encoder = call.live.bundle.encoder
    assert isinstance(encoder, LateInteractionEncoder), "check_matching was called"
    texts = [document_text(hit.title, hit.text) for hit in hits]
    asked, read = await service.vectors(call, [query], "query"), await service.vectors(call, texts, "document")

    def match() -> list[MatchedWords]:
        return match_words(query, texts, asked, read, encoder.spans("query"), encoder.spans("document"))

    found = await asyncio.get_running_loop().run_in_executor(service.threads, match)
    return [_answer(hit, matched) for hit, matched in zip(hits, found, strict=True)]


def _answer(hit: Hit, matched: MatchedWords) -> dict[str, Any]:
    """Return matched words with spans in the title and in the text, which the encoder reads as one."""
    end = len(hit.title)
    start = end + 1 if hit.title else 0  # a space joins them

    def part(share: float) -> float:
        return max(0.0, share / matched.score) if matched.score > 0 else 0.0

    return {
        "words": [{"word": one.word, "found": one.found, "share": part(one.share)} for one in matched.words],
        "title": [(first, last, part(share)) for first, last, share in matched.found if last <= end],
        "text": [(first - start, last - start, part(share)) for first, last, share in matched.found if first >= start],
    }
