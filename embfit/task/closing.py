"""The last lines of a training: where things are, and what to do with them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from embfit.run.folder import RunFolder


def where_things_are(run: RunFolder, use: str, about: Sequence[str]) -> str:
    """Name what a run folder has for a person.

    Args:
        run: made the model.
        use: the overrides that make use of it; it stands in the place of `{}`.
        about: groups of the run whose overrides these need as well, to be about the same things.
    """
    model = run.dir / "model"
    same = [word for word in run.overrides if re.split(r"[.=@]", word.lstrip("+~"))[0] in about]
    return "\n".join(
        [
            f"model    {model}",
            f"report   {run.dir / 'report.html'}",
            f"numbers  {run.dir / 'report.json'}",
            f"use it   python -m embfit {' '.join([use.format(model), *map(shlex.quote, same)])}",
        ]
    )
