"""Plans a refresh: what changed since the champion, whether training is needed, and how long it took the last time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from embfit.bundle import BundleVersions, Manifest
from embfit.bundle.changes import DocumentChanges, contents, published_contents, training_digest
from embfit.bundle.seen_documents import SeenDocuments
from embfit.bundle.versions import VersionLease
from embfit.records import Collection
from embfit.store import digest

Train: TypeAlias = Literal["auto", "always", "never"]

TRAINING = ("load model", "evaluate base", "mine negatives", "train", "evaluate tuned")
INDEXING = ("index words", "make version")


@dataclass(frozen=True)
class RefreshPlan:
    """The plan of a refresh.

    Args:
        name: the bundle's name.
        champion: the manifest of the current champion; None if there is none.
        documents: the number of documents today.
        changes: the changes since the champion's documents.
        pairs: identifies today's training pairs; empty if there are none.
        seen: ids of today's documents that the champion's model was trained on, in this text or in an earlier one.
        trains: whether a model is trained.
        generates: whether a generator writes pairs about the documents.
        seconds: the stages' seconds in the run that made the champion, as far as known.
    """

    name: str
    champion: Manifest | None
    documents: int
    changes: DocumentChanges
    pairs: str
    seen: frozenset[str]
    trains: bool
    generates: bool
    seconds: Mapping[str, float]

    @property
    def nothing(self) -> bool:
        """Whether the champion is up to date."""
        return self.champion is not None and not self.trains and not self.changes

    @property
    def outdated(self) -> bool:
        """Whether there is a champion with other documents than today's."""
        return self.champion is not None and bool(self.changes)

    @contextmanager
    def champion_held(self, versions: BundleVersions) -> Iterator[None]:
        """Keep the champion from being pruned."""
        if self.champion is None:
            yield
            return
        lease = VersionLease(versions.path(self.champion.version))
        try:
            yield
        finally:
            lease.release()

    def lines(self) -> Iterator[str]:
        """Yield the lines to print before the work begins."""
        changes = self.changes
        since = "" if self.champion is None else f" since {self.champion.label}"
        found = [
            f"{len(ids):,} {what}"
            for what, ids in (("new", changes.added), ("changed", changes.changed), ("removed", changes.removed))
            if ids
        ]
        yield f"documents  {self.documents:,}: {', '.join(found) or 'none changed'}{since}"
        yield f"pairs      {self._pairs()}"
        yield f"to do      {self._to_do()}"

    def _pairs(self) -> str:
        if not self.pairs:
            return "none to train on"
        if self.generates and self.trains:
            return "a generator writes some about the documents"
        if self.champion is None:
            return "there are some, and no model yet"
        same = self.pairs == self.champion.trained_on
        return f"those that {self.champion.label} was trained on" if same else f"new for {self.champion.label}"

    def _to_do(self) -> str:
        if self.nothing:
            return "nothing"
        steps = []
        if self.trains:
            weights = "the model's weights" if self.champion is None else f"the weights of {self.champion.label}"
            steps.append(f"train from {weights}{self._took(TRAINING)}")
        steps.append(f"make a version{self._took(INDEXING)}")
        return ", ".join([*steps, "check it against the gates"])

    def _took(self, stages: Sequence[str]) -> str:
        known = [self.seconds[stage] for stage in stages if stage in self.seconds]
        return f" ({sum(known):.0f} s the last time)" if known and stages[-1] in self.seconds else ""


def plan_refresh(versions: BundleVersions, collection: Collection, train: Train, generates: bool) -> RefreshPlan:
    """Compare a collection with a bundle's champion.

    Args:
        versions: the versions of the bundle.
        collection: today's data.
        train: when to train.
        generates: whether training queries are generated, so that changed documents mean changed pairs.

    Raises:
        UserError: the champion's documents cannot be read.
    """
    number = versions.pointer("champion")
    champion = None if number is None else versions.manifest(number)
    before: dict[str, bytes] = {}
    seen: frozenset[str] = frozenset()
    if champion is not None:
        folder = versions.path(champion.version)
        before = published_contents(folder, champion)
        seen = SeenDocuments.read(folder).among(collection.document_ids, before.keys())
    pairs = training_digest(collection)
    if generates:
        pairs = digest(
            {"pairs": pairs, "documents": sorted(content.hex() for content in contents(collection).values())}
        )
    known = champion is not None and champion.trained_on == pairs
    return RefreshPlan(
        name=versions.name,
        champion=champion,
        documents=len(collection.corpus),
        changes=DocumentChanges.between(before, contents(collection)),
        pairs=pairs,
        seen=seen,
        generates=generates,
        trains=bool(pairs) and (train == "always" or (train == "auto" and not known)),
        seconds={} if champion is None else _seconds(Path(champion.run)),
    )


def _seconds(run: Path) -> Mapping[str, float]:
    """Return the seconds of a run's stages; empty if its folder is gone."""
    try:
        found: Any = json.loads((run / "report.json").read_text(encoding="utf-8"))
        verdict = run / "verdict.json"
        later: Any = json.loads(verdict.read_text(encoding="utf-8")) if verdict.is_file() else {}
        return {**found["timings"], **later.get("seconds", {})}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
