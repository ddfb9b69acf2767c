"""Gates: what a version must hold to before it becomes champion. They read what was measured when it was made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from embfit.bundle.manifest import Manifest, read_manifest
from embfit.errors import UserError
from embfit.evaluator.significance import bootstrap_interval

FILE = "quality.json"
METRIC = "ndcg@10"
RESAMPLES = 10_000
SEED = 0

Unit = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class GateResult:
    """What one gate says.

    Args:
        gate: its key.
        passed: whether the version may become champion as far as this gate can tell.
        said: what was found, beside the limit.
    """

    gate: str
    passed: bool
    said: str

    @property
    def line(self) -> str:
        """What is printed of it."""
        return f"{'passed' if self.passed else 'FAILED'}  {self.gate}: {self.said}"


@dataclass(frozen=True)
class Gates:
    """Limits of a version that is to become champion; None is no limit.

    A limit of what was not measured is passed over and said to be, except `floor` and `slices`, which ask for a number.

    Args:
        floor: least nDCG@10.
        loss: by how much nDCG@10 may be lower than the champion's on the same queries: the lower end of the paired 95 %
            interval of the difference is held to it.
        slices: least nDCG@10 of parts of the queries, by name, such as `unseen` or `production`.
        recall: least share of the exact search's first ten documents that the index finds.
        latency_ms: most milliseconds of a query's encoding and search, at the 95th percentile.
        churn: from which share of changed documents among the first ten on a warning is given; it stops nothing.
    """

    floor: Unit | None = None
    loss: Unit | None = 0.02
    slices: Mapping[str, Unit] | None = None
    recall: Unit | None = 0.95
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    churn: Unit | None = 0.5

    def check(self, version: Path, champion: Path | None) -> list[GateResult]:
        """Hold a version to the limits.

        Args:
            version: the folder of the version.
            champion: that of the version which is champion now, if there is one.

        Raises:
            UserError: a manifest is damaged.
        """
        manifest, measured = read_manifest(version), read_quality(version)
        results = [*self._floors(manifest, measured), *self._of_the_index(manifest)]
        if champion is not None:
            before = read_quality(champion)
            results += [
                *self._against(manifest, measured, read_manifest(champion), before),
                *self._churn(measured, before),
            ]
        return results

    def _floors(self, manifest: Manifest, measured: Mapping[str, Any]) -> Iterator[GateResult]:
        found = manifest.quality.metrics.get(METRIC) if manifest.quality else None
        if self.floor is not None:
            yield _at_least("floor", METRIC, found, self.floor)
        for name, least in (self.slices or {}).items():
            yield _at_least(
                f"slices.{name}", f"{METRIC} of {name}", measured["slices"].get(name, {}).get(METRIC), least
            )

    def _of_the_index(self, manifest: Manifest) -> Iterator[GateResult]:
        if self.recall is not None and manifest.index.recall is not None:
            yield _at_least("recall", "recall@10 of the exact search", manifest.index.recall, self.recall)
        p95 = manifest.latency_ms.get("p95")
        if self.latency_ms is not None and p95 is not None:
            passed = p95 <= self.latency_ms
            yield GateResult("latency_ms", passed, f"p95 {p95:.1f} ms, limit {self.latency_ms:g}")

    def _against(
        self, manifest: Manifest, measured: Mapping[str, Any], champion: Manifest, before: Mapping[str, Any]
    ) -> Iterator[GateResult]:
        """Compare with the champion on the queries of both."""
        if self.loss is None:
            return
        ours, theirs = (one["per_query"].get(METRIC, {}) for one in (measured, before))
        same = manifest.quality and champion.quality and manifest.quality.judgements == champion.quality.judgements
        if not same or not ours:
            yield GateResult("loss", True, f"not compared with {champion.label}: the same queries were not measured")
            return
        differences = np.array([value - theirs[query] for query, value in ours.items()])  # [Q]
        interval = bootstrap_interval(differences, RESAMPLES, SEED)
        lower = float(differences.mean()) if interval is None else interval[0]
        said = f"{METRIC} {differences.mean():+.4f} against {champion.label}"
        said += "" if interval is None else f", 95 % interval {interval[0]:+.4f} to {interval[1]:+.4f}"
        yield GateResult("loss", lower >= -self.loss, f"{said}; limit -{self.loss:g}")

    def _churn(self, measured: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[GateResult]:
        shares = overlaps(before["answers"], measured["answers"])
        if self.churn is None or not shares:
            return
        changed = 1 - float(np.mean(shares))
        said = f"{changed:.0%} of the first ten documents changed ({len(shares)} queries)"
        yield GateResult("churn", True, said + (f"; more than {self.churn:.0%}" if changed > self.churn else ""))


def overlaps(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> list[float]:
    """Return the share of a query's documents that it still has, for each query that was asked both times."""
    shared = [query for query in before if query in after]
    return [len({*before[query]} & {*after[query]}) / max(1, len(before[query])) for query in shared]


def read_quality(folder: Path) -> dict[str, Any]:
    """Return what was measured of a version: `per_query`, `slices` and `answers`.

    Raises:
        UserError: the file is damaged.
    """
    try:
        found: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        _ = found["per_query"], found["slices"], found["answers"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / FILE} cannot be read ({error}); use another version") from error
    return found


def _at_least(gate: str, what: str, found: float | None, least: float) -> GateResult:
    if found is None:
        return GateResult(gate, False, f"{what} was not measured, and {least:g} is asked for")
    return GateResult(gate, found >= least, f"{what} {found:.4f}, limit {least:g}")
