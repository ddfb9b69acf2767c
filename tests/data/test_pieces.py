"""How documents are cut, with pieces written out by hand, and that no text is lost."""

from __future__ import annotations

import random

import pytest

from embfit.data.formats.block import Block
from embfit.data.formats.markdown_text import read_markdown
from embfit.data.near_copies import NearCopies
from embfit.data.pieces import Piece, cut, headings_without_text, split_text, whole
from embfit.data.token_estimate import estimate_tokens

GUIDE = """Preface.

# Guide

Welcome.

## Install

### Linux

Use apt.

Or pip.

### Windows

Use the installer.

## Empty

# Annex

The end.
"""


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a cat", 2), ("documentation", 3), ("x=12345;", 6), ("über", 1), ("文書 を", 3), ("snake_case", 3)],
)
def test_tokens_are_estimated(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def test_a_document_is_cut_at_its_headings() -> None:
    blocks = list(read_markdown(GUIDE))
    assert list(cut(blocks, 64)) == [
        Piece("", "Preface.", "line 1"),
        Piece("Guide", "Welcome.", "line 5"),
        Piece("Guide > Install > Linux", "Use apt.\nOr pip.", "line 11"),
        Piece("Guide > Install > Windows", "Use the installer.", "line 17"),
        Piece("Annex", "The end.", "line 23"),
    ]
    assert headings_without_text(blocks) == 1  # Empty


def test_a_whole_document_keeps_its_headings() -> None:
    assert list(whole(list(read_markdown("# Guide\nWelcome.\n## Install\nUse apt.\n")))) == [
        Piece("Guide", "Welcome.\nInstall\nUse apt.", "line 1")
    ]
    assert list(whole(list(read_markdown("Welcome.\n# Guide\n")))) == [Piece("", "Welcome.\nGuide", "line 1")]
    assert list(whole([])) == []


def test_a_long_section_is_cut_into_pieces_of_about_equal_length() -> None:
    blocks = [Block(f"word{letter} " * 18 + "end.", f"line {at}") for at, letter in enumerate("abcde", 1)]  # 20 tokens
    pieces = list(cut([Block("Head", "line 0", 1), *blocks], 67))  # 64 without the title and special tokens
    assert [piece.position for piece in pieces] == ["line 1", "line 4"]
    assert [estimate_tokens(piece.text) for piece in pieces] == [60, 40]
    assert {piece.title for piece in pieces} == {"Head"}


def test_a_title_loses_its_outer_headings_first() -> None:
    blocks = [Block(f"heading {word}", "line 1", level) for level, word in enumerate(["one", "two", "three"], 1)]
    (piece,) = cut([*blocks, Block("Text.", "line 4")], 32)
    assert piece.title == "heading two > heading three"  # 9 tokens would be three headings with marks


def test_a_long_paragraph_is_cut_at_lines_then_sentences_then_words() -> None:
    assert list(split_text("one two\nthree four. Five six seven", 4)) == ["one two", "three four.", "Five six seven"]
    assert list(split_text("a b c d e", 2)) == ["a b", "c d", "e"]
    assert list(split_text("文書。検索。", 3)) == ["文書。", "検索。"]
    assert list(split_text("x" * 30, 3)) == ["xxx"] * 10


def test_no_text_is_lost_between_headings() -> None:
    drawn = random.Random(0)
    for _ in range(200):
        blocks = []
        for at in range(drawn.randint(1, 30)):
            words = [f"w{drawn.randint(0, 999)}{mark}" for mark in drawn.choices(["", ".", ",", "\n"], k=60)]
            said = " ".join(words[: drawn.randint(1, 60)]).strip()
            level = drawn.choice([0, 0, 0, 1, 2, 3])
            blocks.append(Block(f"H{at}" if level else said, f"line {at}", level))
        tokens = drawn.choice([32, 64, 256])
        pieces = list(cut(blocks, tokens))
        told = [word for piece in pieces for word in piece.text.split()]
        assert told == [word for block in blocks if not block.level for word in block.text.split()]
        assert all(estimate_tokens(piece.text) <= tokens for piece in pieces)
        titles = {title for piece in pieces for title in piece.title.split(" > ")}
        alone = [block.text for block in blocks if block.level and block.text not in titles]
        assert len(alone) == headings_without_text(blocks)


def test_near_copies_are_those_of_a_comparison_of_all() -> None:
    drawn = random.Random(1)
    texts = []
    for _ in range(60):
        words = [f"w{drawn.randint(0, 40)}" for _ in range(30)]
        texts += [" ".join(words), " ".join([*words[:27], "other", *words[28:]]), " ".join(words[:29])]
    drawn.shuffle(texts)
    for similarity in (0.5, 0.8, 0.9, 1.0):
        near = NearCopies(similarity)
        kept: list[frozenset[str]] = []
        for text in texts:
            words = text.split()
            own = frozenset(" ".join(words[at : at + 4]) for at in range(len(words) - 3))
            expected = next((at for at, one in enumerate(kept) if len(own & one) >= similarity * len(own | one)), None)
            assert near.find(text) == expected
            assert near.first(text) == expected
            if expected is None:
                kept.append(own)
