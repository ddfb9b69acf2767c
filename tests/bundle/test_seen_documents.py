"""Documents that a model was trained on are known after they have been edited, and from version to version."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embfit.bundle.seen_documents import SeenDocuments

OLD, NEW, OTHER = "0123456789ab", "ba9876543210", "aaaaaaaaaaaa"


def test_ids_are_found_again_among_todays() -> None:
    seen = SeenDocuments.of(["d1", "d2"])
    assert seen.among(["d0", "d1", "d3"], ["d0", "d1", "d2"]) == {"d1"}
    assert seen.among(["d2"], []) == {"d2"}  # it was away for some versions
    assert SeenDocuments.of([]).among(["d1"], ["d1"]) == set()


def test_a_piece_in_the_place_of_one_that_was_seen() -> None:
    seen = SeenDocuments.of([f"birds.md#{OLD}", f"fish.md#{OLD}"])
    before = [f"birds.md#{OLD}", f"fish.md#{OLD}", f"bees.md#{OLD}"]
    today = [f"birds.md#{NEW}", f"fish.md#{OLD}", f"fish.md#{NEW}", f"bees.md#{NEW}", f"worms.md#{NEW}"]
    # of birds.md a piece that was seen is gone; fish.md has one more; nothing of the others was seen
    assert seen.among(today, before) == {f"birds.md#{NEW}", f"fish.md#{OLD}"}
    assert seen.among(["birds.md"], before) == set()


def test_what_was_seen_is_added_up_and_kept(tmp_path: Path) -> None:
    both = SeenDocuments.of(["d1", "d1", "d2"]) | SeenDocuments.of(["d2", f"birds.md#{OTHER}"])
    assert len(both) == 3
    both.write(tmp_path)
    assert np.array_equal(SeenDocuments.read(tmp_path).digests, both.digests)
    assert len(SeenDocuments.read(tmp_path / "none")) == 0
