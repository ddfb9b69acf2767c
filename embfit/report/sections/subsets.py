"""Whether the gain holds for documents that training never saw."""

from __future__ import annotations

from typing import Any

from embfit.report.contents import subset_metrics
from embfit.report.findings import same_pair
from embfit.report.subject import Subject

PLACE = 30


def section(subject: Subject) -> dict[str, Any] | None:
    """Return the main pair's comparisons in the first metric with both means: all queries, then each subset."""
    main = subject.main
    if main is None:
        return None
    systems = subject.systems[main.a], subject.systems[main.b]
    rows = []
    for found in subject.report.comparisons:
        if same_pair(found, main) and found.metric == main.metric:
            before, after = (
                (system.metrics if found.subset == main.subset else subset_metrics(system)[found.subset])[main.metric]
                for system in systems
            )
            rows.append((found, before, after))
    if len(rows) < 2:
        return None
    title = "Did it learn the domain, or the documents?" if subject.report.training else "Seen and unseen documents"
    return {"title": title, "main": main, "rows": rows, "near_copies": "near-copy" in systems[0].subsets}
