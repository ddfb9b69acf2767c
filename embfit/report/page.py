"""`report.html`: one file that needs no network, in light and dark, on paper and on a telephone.

It shows the modules of `sections/`, each through its template of the same name.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from embfit.compose.value_origins import Origins
from embfit.records import Collection, Report
from embfit.report import formatting, glossary
from embfit.report.decision import decide
from embfit.report.findings import deciding_p, outcome
from embfit.report.sections import sections
from embfit.report.subject import Subject
from embfit.report.templates import template_environment
from embfit.report.verdict import verdict
from embfit.version import __version__


def page(
    report: Report,
    config: Mapping[str, Any],
    provenance: Mapping[str, str],
    collection: Collection | None = None,
    command: str = "",
    versions: Mapping[str, Any] | None = None,
    model: Path | None = None,
) -> str:
    """Return the page.

    Args:
        report: what was found out.
        config: the resolved configuration.
        provenance: key of each of its leaves → where it was written.
        collection: texts and judgements, for the curves by k and the query explorer, which are left out without it.
        command: what was typed to run it.
        versions: code, packages and machine.
        model: the folder of the model that the run made.
    """
    subject = Subject(report, config, Origins.of(provenance), collection, command, versions or {}, model)
    environment = _environment()
    drawn = []
    for name, section in sections().items():
        if (content := section(subject)) is not None:
            template = environment.get_template(f"sections/{name}.html")
            drawn.append((name, content["title"], Markup(template.render(content))))
    return environment.get_template("template.html").render(
        report=report,
        name=collection.name if collection else report.task,
        documents=len(collection.corpus) if collection else None,
        base=_base(config),
        decision=decide(report),
        verdict=verdict(report),
        sections=drawn,
        written=datetime.now().astimezone().strftime("%-d %B %Y, %H:%M"),
        version=__version__,
    )


def _base(config: Mapping[str, Any]) -> str | None:
    """Return the name of the model that the run started from."""
    model = config.get("model")
    return str(model["path"]) if isinstance(model, Mapping) and model.get("path") else None


@functools.cache
def _environment() -> Environment:
    environment = template_environment("report")
    environment.globals["meaning"] = glossary.MEANINGS
    environment.filters |= {
        "metric": formatting.metric_label,
        "definition": glossary.definition,
        "plain": formatting.plain,
        "signed": formatting.signed,
        "count": formatting.count,
        "interval": formatting.interval,
        "probability": formatting.probability,
        "duration": formatting.duration,
        "breakable": formatting.breakable,
        "deciding": lambda found: formatting.probability(deciding_p(found)),
        "outcome": lambda found: outcome(found).replace(" ", "-"),
    }
    return environment
