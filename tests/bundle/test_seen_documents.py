"""Documents that a model was trained on are known after they have been edited, and from version to version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from embfit.bundle import BundleVersions, open_bundle
from embfit.bundle.bridging import publish_bridged
from embfit.bundle.publishing import Contents, publish
from embfit.bundle.seen_documents import SeenDocuments
from embfit.evaluator import Retrieval
from embfit.index import ExactBuilder
from embfit.model import Encoder, Pretrained
from embfit.store import Store
from tests.bundle.conftest import CHANGED, documents

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


def test_versions_of_the_same_encoder_hand_the_list_on(
    versions: BundleVersions, tiny_encoder: Encoder, store: Store
) -> None:
    collection = documents(CHANGED)
    context = Retrieval(near_copy=None).context(collection, store, Pretrained(None), load=lambda: tiny_encoder)
    made = Contents(tiny_encoder, collection, ExactBuilder(), seen=SeenDocuments.of(["d1", "d2"]))
    assert publish(versions, made, [context], store).manifest.version == 2
    again = publish(versions, replace(made, seen=None), [context], store)  # as by `task=index`, for another index
    assert SeenDocuments.read(versions.path(again.manifest.version)).among(["d1", "d2", "d4"], []) == {"d1", "d2"}
    other = publish(versions, replace(made, seen=SeenDocuments.of(())), [context], store)
    assert len(SeenDocuments.read(versions.path(other.manifest.version))) == 0
    with open_bundle(versions.folder, 3) as old:
        bridged = publish_bridged(versions, old, old.encoder, [context], {}, "", store)
    assert len(SeenDocuments.read(versions.path(bridged.manifest.version))) == 2
