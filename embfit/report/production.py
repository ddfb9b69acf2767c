"""What production queries say, in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from embfit.report.formatting import bounds, count, interval, metric_label, plain, signed, untold

MANY = 100_000  # queries: beyond it, how many no longer matters


def production_table(section: Mapping[str, Any]) -> Table:
    """Set each system's first metric on the two query sets side by side."""
    metric = section["gaps"][0]["metric"]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=metric_label(metric), title_justify="left")
    table.add_column("")
    for heading in (section["synthetic_split"], section["split"], "gap", "95 % interval"):
        table.add_column(Text(heading), justify="right")
    table.add_column("unjudged\nof 10", justify="right")
    table.add_column("judged\npart", justify="right")
    for gap in section["gaps"]:
        if gap["metric"] == metric:
            system = section["systems"][gap["system"]]
            table.add_row(
                Text(gap["system"]),
                plain(gap["synthetic"]),
                plain(gap["production"]),
                signed(gap["gap"]),
                interval(gap["ci95"], 3, "…"),
                f"{system['unjudged@10']:.1f}",
                plain(system["condensed"][metric]),
            )
    return table


def production_sentences(section: Mapping[str, Any]) -> Iterator[str]:
    """Say how much of each gain arrives, what would settle it, and what to beware of."""
    for gain, power in zip(section["gains"], section["power"], strict=True):
        label = metric_label(gain["metric"])
        yield (
            f"{gain['b']} − {gain['a']}: {label} {signed(gain['synthetic'], 3)} on {section['synthetic_split']}, "
            f"{signed(gain['production'], 3)} on {section['split']}: {signed(gain['gap'], 3)} from one to the other "
            f"({bounds(gain['ci95'], 3)})."
        )
        if "detectable" in power:
            yield _enough(power, section["synthetic_split"])
        else:
            yield f"How many production queries would settle it is not known: {untold(power['queries'])}."
    for warning in section["warnings"]:
        yield f"Beware: {warning}."


def _enough(power: Mapping[str, Any], synthetic: str) -> str:
    effects = {
        "the difference seen": power["needed_for_observed"],
        f"that of {synthetic}": power["needed_for_synthetic"],
    }
    effects |= power["needed"]
    needed = [
        f"{f'over {MANY:,}' if number > MANY else f'{number:,}'} for {effect}"
        for effect, number in effects.items()
        if number is not None
    ]
    return (
        f"{count(power['queries'], 'production query', 'production queries')} can show a difference of "
        f"{power['detectable']:.3f} ({power['power']:.0%} of the time). Queries to judge: {', '.join(needed)}."
    )
