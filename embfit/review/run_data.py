"""The data of a finished run, read again as its configuration says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from embfit.compose.build import make
from embfit.errors import UserError, first_line
from embfit.records import Collection
from embfit.run.resume import recorded_config, started_elsewhere
from embfit.store import Store


@dataclass(frozen=True)
class RunData:
    """A run's data.

    Args:
        folder: of the run.
        values: its configuration.
        collection: what its `data` reads today.
        store: the run's.
        overrides: the command line of the run.
    """

    folder: Path
    values: Mapping[str, Any]
    collection: Collection
    store: Store
    overrides: Sequence[str]


def read_run_data(folder: Path) -> RunData:
    """Read the data of a run.

    Raises:
        UserError: the folder is not a run's, the run was begun in another directory, or its data cannot be read.
    """
    try:
        values = recorded_config(folder)
        overrides = json.loads((folder / "versions.json").read_text(encoding="utf-8")).get("overrides", [])
        node = values["data"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{folder} is not the folder of a run: it has no {Path(error.filename).name}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{folder} is not the folder of a run: {first_line(error)}") from error
    if directory := started_elsewhere(folder):
        raise UserError(
            f"{folder} began in {directory}, where its relative paths start; run this command from there, and name "
            f"the run {folder.absolute()}"
        )
    store: Store = make(values["store"], "store")
    return RunData(folder, values, make(node, "data").load(store), store, overrides)
