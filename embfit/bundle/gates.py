"""Gates: the limits that a version must meet before it becomes champion, by the measurements of its making."""

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
    """The result of one gate.

    Args:
        gate: the gate's key.
        passed: whether the version meets this gate's limit.
        said: the measured value and the limit, in words.
    """

    gate: str
    passed: bool
    said: str

    @property
    def line(self) -> str:
        """The result in one line."""
        return f"{'passed' if self.passed else 'FAILED'}  {self.gate}: {self.said}"


@dataclass(frozen=True)
class SameQueries:
    """nDCG@10 of a new model and of the one before it on the same queries and documents, measured by its training.

    Args:
        champion: the number of the champion's version, which has the model before; None for a first version.
        before: query → nDCG@10 of the model before, on today's documents.
        after: query → nDCG@10 of the new model.
        left_out: the number of queries left out because the model before was trained on their documents.
    """

    champion: int | None
    before: Mapping[str, float]
    after: Mapping[str, float]
    left_out: int = 0


@dataclass(frozen=True)
class Gates:
    """The limits for a version that is to become champion; None is no limit.

    A limit without a measurement is skipped with a note, except `floor` and `slices`: these need a measurement,
    unless there are no judgements and the champion has the same model with other documents.

    Args:
        floor: the lowest accepted nDCG@10. Without judgements, the training's nDCG@10 on generated queries counts.
        loss: how much lower nDCG@10 may be than the champion's on the same queries: the lower end of the paired 95 %
            interval of the difference must be within this limit.
        slices: the lowest accepted nDCG@10 of subsets of the queries, by name, such as `unseen` or `production`.
        recall: the lowest accepted share of the exact search's top ten documents that the index finds.
        latency_ms: the most milliseconds for a query's encoding and search, at the 95th percentile.
        churn: the share of changed documents in the top ten from which on there is a warning; it never refuses.
    """

    floor: Unit | None = None
    loss: Unit | None = 0.02
    slices: Mapping[str, Unit] | None = None
    recall: Unit | None = 0.95
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    churn: Unit | None = 0.5

    def check(
        self, version: Path, champion: Path | None, measured_again: SameQueries | None = None
    ) -> list[GateResult]:
        """Check a version against the limits.

        Args:
            version: the version's folder.
            champion: the current champion's folder, if there is one.
            measured_again: the results of both models on the version's documents; for `loss`, they replace those that
                were measured on the champion's documents.

        Raises:
            UserError: a manifest is damaged.
        """
        manifest, measured = read_manifest(version), read_quality(version)
        theirs = None if champion is None else _Side(read_manifest(champion), read_quality(champion))
        results = [
            *self._floor(manifest, theirs, measured_again),
            *self._slices(manifest, measured, theirs),
            *self._of_the_index(manifest),
        ]
        if theirs is not None:
            results += [
                *self._against(_Side(manifest, measured), theirs, measured_again),
                *self._churn(measured, theirs.measured),
            ]
        return results

    def _floor(self, new: Manifest, champion: _Side | None, measured_again: SameQueries | None) -> Iterator[GateResult]:
        if self.floor is None:
            return
        found, what = (new.quality.metrics.get(METRIC) if new.quality else None), METRIC
        if found is None and measured_again is not None and measured_again.after:
            values = list(measured_again.after.values())
            found, what = float(np.mean(values)), f"{METRIC} of {len(values)} generated queries"
        if found is None and champion is not None and _only_documents_differ(new, champion.manifest):
            yield GateResult("floor", True, _unjudged(champion))
        else:
            yield _at_least("floor", what, found, self.floor)

    def _slices(self, new: Manifest, measured: Mapping[str, Any], champion: _Side | None) -> Iterator[GateResult]:
        known: Mapping[str, Mapping[str, float]] = measured["slices"]
        unjudged = new.quality is None
        for name, least in (self.slices or {}).items():
            found = known.get(name, {}).get(METRIC)
            if unjudged and champion is not None and _only_documents_differ(new, champion.manifest):
                yield GateResult(f"slices.{name}", True, _unjudged(champion))
                continue
            remedy = f"name one that was ({', '.join(sorted(known))})" if known else "judge some queries"
            yield _at_least(f"slices.{name}", f"{METRIC} of {name}", found, least, f"; {remedy}, or remove the limit")

    def _of_the_index(self, manifest: Manifest) -> Iterator[GateResult]:
        if self.recall is not None and manifest.index.recall is not None:
            yield _at_least("recall", "recall@10 of the exact search", manifest.index.recall, self.recall)
        p95 = manifest.latency_ms.get("p95")
        if self.latency_ms is not None and p95 is not None:
            passed = p95 <= self.latency_ms
            yield GateResult("latency_ms", passed, f"p95 {p95:.1f} ms, limit {self.latency_ms:g}")

    def _against(self, new: _Side, champion: _Side, measured_again: SameQueries | None) -> Iterator[GateResult]:
        """Compare the version with the champion on the queries that both have."""
        if self.loss is None:
            return
        label = champion.manifest.label
        if _only_documents_differ(new.manifest, champion.manifest):
            yield GateResult("loss", True, f"the model is that of {label}, on other documents")
            return
        if measured_again is not None and measured_again.champion == champion.manifest.version:
            ours, theirs, of = measured_again.after, measured_again.before, f"the model of {label} on these documents"
            left_out = measured_again.left_out
        else:
            ours, theirs, of, left_out = new.values, champion.values, label, 0
            qualities = (new.manifest.quality, champion.manifest.quality)
            judgements = {None if quality is None else quality.judgements for quality in qualities}
            if None in judgements or len(judgements) > 1:
                ours = {}
        unfair = f"{left_out} queries left out, since {label} was trained on their documents" if left_out else ""
        if not ours:
            why = unfair or "the same queries were not measured"
            yield GateResult("loss", True, f"not compared with {label}: {why}")
            return
        differences = np.array([value - theirs[query] for query, value in ours.items()])  # [Q]
        interval = bootstrap_interval(differences, RESAMPLES, SEED)
        lower = float(differences.mean()) if interval is None else interval[0]
        said = ", ".join([f"{METRIC} {differences.mean():+.4f} against {of}", *interval_words(interval)])
        said += f"; limit -{self.loss:g}" + (f"; {unfair}" if unfair else "")
        yield GateResult("loss", lower >= -self.loss, said)

    def _churn(self, measured: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[GateResult]:
        shares = overlaps(before["answers"], measured["answers"])
        if self.churn is None or not shares:
            return
        changed = 1 - float(np.mean(shares))
        said = f"{changed:.0%} of the first ten documents changed ({len(shares)} queries)"
        yield GateResult("churn", True, said + (f"; more than {self.churn:.0%}" if changed > self.churn else ""))


@dataclass(frozen=True)
class _Side:
    """A version in a comparison: its manifest and its measurements."""

    manifest: Manifest
    measured: Mapping[str, Any]

    @property
    def values(self) -> Mapping[str, float]:
        """nDCG@10 by query."""
        values: Mapping[str, float] = self.measured["per_query"].get(METRIC, {})
        return values


def _only_documents_differ(a: Manifest, b: Manifest) -> bool:
    """Return whether two versions have the same model with other documents: then neither model is worse."""
    alike = (a.model.query, a.model.document) == (b.model.query, b.model.document)
    return alike and a.documents.sha256 != b.documents.sha256


def interval_words(interval: tuple[float, float] | None) -> list[str]:
    """Return a 95 % interval in words as a list with one part of a sentence; empty without an interval."""
    return [] if interval is None else [f"95 % interval {interval[0]:+.4f} to {interval[1]:+.4f}"]


def overlaps(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> list[float]:
    """Return, for each query that both have, the share of its documents that it still finds."""
    shared = [query for query in before if query in after]
    return [len({*before[query]} & {*after[query]}) / max(1, len(before[query])) for query in shared]


def read_quality(folder: Path) -> dict[str, Any]:
    """Return a version's measurements: `per_query`, `slices` and `answers`.

    Raises:
        UserError: the file is damaged.
    """
    try:
        found: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        _ = found["per_query"], found["slices"], found["answers"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / FILE} cannot be read ({error}); use another version") from error
    return found


def _unjudged(champion: _Side) -> str:
    return f"no query is judged, and the model is that of {champion.manifest.label}, on other documents"


def _at_least(gate: str, what: str, found: float | None, least: float, remedy: str = "") -> GateResult:
    if found is None:
        return GateResult(gate, False, f"{what} was not measured, and {least:g} is asked for{remedy}")
    return GateResult(gate, found >= least, f"{what} {found:.4f}, limit {least:g}")
