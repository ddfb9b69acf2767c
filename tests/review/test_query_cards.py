"""Which generated queries a person gets to see, and which words of their documents are marked."""

from __future__ import annotations

from collections import Counter
from typing import Any

from embfit.review.matched_words import WordMatcher
from embfit.review.query_cards import choose_rows


def rows(mark: str | None, count: int, **columns: Any) -> list[dict[str, Any]]:
    return [{"_id": f"{mark}{number}", "dropped_by": mark, **columns} for number in range(count)]


def chosen(found: list[dict[str, Any]], count: int, seed: int = 0) -> list[str]:
    return [str(row["_id"]) for row in choose_rows(found, count, seed)]


def test_half_are_kept_and_the_others_are_nearest_to_the_limits() -> None:
    trips = [
        {"_id": f"rank {rank}", "dropped_by": "round_trip", "rank_dense": rank, "rank_bm25": None}
        for rank in (90, 21, None, 40, 22)
    ]
    improbable = [
        {"_id": f"log {value}", "dropped_by": "improbable", "log_probability": value} for value in (-4.0, -2.6, -3.0)
    ]
    certain = rows("leak", 5) + rows("duplicate", 5)
    found = chosen(rows(None, 50) + trips + improbable + certain, 10)
    assert Counter(name.split()[0] if " " in name else "kept" for name in found) == {"kept": 5, "log": 3, "rank": 2}
    assert {name for name in found if " " in name} == {"log -2.6", "log -3.0", "log -4.0", "rank 21", "rank 22"}
    assert found == chosen(rows(None, 50) + trips + improbable + certain, 10)
    assert found != chosen(rows(None, 50) + trips + improbable + certain, 10, seed=1)


def test_what_a_model_nearly_let_pass_comes_first() -> None:
    ranked = [
        {"_id": f"rank {rank}", "dropped_by": "cross_encoder", "rank_dense": 1, "rank_cross_encoder": rank}
        for rank in (9, 2, 5)
    ]
    graded = [
        {"_id": f"grade {grade} {place}", "dropped_by": "judge", "grade": grade} for place in (1, 2) for grade in (0, 1)
    ]
    assert set(chosen(ranked + graded, 4)) == {"rank 2", "rank 5", "grade 1 1", "grade 1 2"}


def test_a_larger_page_has_the_cards_of_a_smaller_one() -> None:
    found = rows(None, 40) + rows("form", 30) + rows("copy", 30, copied_words=9)
    assert set(chosen(found, 10)) < set(chosen(found, 20)) < set(chosen(found, 60))


def test_where_one_half_is_short_the_other_fills_up() -> None:
    assert Counter(name[:4] for name in chosen(rows(None, 40) + rows("form", 2), 20)) == {"None": 18, "form": 2}
    assert Counter(name[:4] for name in chosen(rows(None, 3) + rows("form", 40), 20)) == {"None": 3, "form": 17}
    assert len(chosen(rows(None, 3) + rows("form", 2), 20)) == 5


def test_what_a_person_has_decided_is_not_shown_again() -> None:
    found = rows(None, 3, review="keep") + rows("review", 2, review="drop") + rows("form", 1)
    assert chosen(found, 10) == ["form0"]


def test_words_are_marked_by_their_stems() -> None:
    english = WordMatcher("english")
    assert english.shared("Which infections are of the heart?", "An infection, infected; the Heart of hearts") == [
        "infection", "infected", "heart", "hearts",
    ]  # fmt: skip
    assert english.shared("the of", "the of") == []
    assert WordMatcher(None).shared("infections", "an infection") == []
    assert WordMatcher(None).shared("東京タワー", "東の塔") == ["東"]
