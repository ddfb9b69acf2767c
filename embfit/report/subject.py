"""The run that a page is about, as its sections read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from embfit.compose.value_origins import Origins
from embfit.records import Collection, Comparison, Evaluation, Report
from embfit.report.findings import headline


@dataclass(frozen=True)
class Subject:
    """A run, for its page.

    Args:
        report: what was found out.
        config: the resolved configuration.
        origins: where each of its values was written.
        collection: texts and judgements; None where the run had none.
        command: what was typed to run it.
        versions: code, packages and machine, as `versions.json` has them.
        model: the folder of the model that the run made; None where it made none.
    """

    report: Report
    config: Mapping[str, Any]
    origins: Origins
    collection: Collection | None = None
    command: str = ""
    versions: Mapping[str, Any] = field(default_factory=dict)
    model: Path | None = None

    @cached_property
    def main(self) -> Comparison | None:
        """The comparison that the run is about."""
        return headline(self.report)

    @cached_property
    def systems(self) -> dict[str, Evaluation]:
        """Evaluations by name."""
        return {evaluation.system: evaluation for evaluation in self.report.evaluations}

    @cached_property
    def places(self) -> dict[str, int]:
        """Each system's place among the colours: first what the run is about, then what it is compared with."""
        names = [self.main.b, self.main.a] if self.main else []
        return {name: place for place, name in enumerate(dict.fromkeys([*names, *self.systems]))}
