"""`embfit schema`: JSON schemas, with which editors complete and check YAML files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from embfit.atomic_files import write_text
from embfit.compose.command_line import Parser
from embfit.compose.loader import make_loader
from embfit.compose.problems import refuse
from embfit.compose.schema import schemas, settings, sound_choices


def run(arguments: Sequence[str]) -> None:
    """Run `embfit schema ARGUMENTS`.

    Raises:
        ConfigError: wrong arguments; or some files are in no schema, since they are broken: the others are.
        OSError: the folder cannot be written.
    """
    parser = Parser(prog="embfit schema", description="Write a JSON schema for each group's YAML files.")
    parser.add_argument(
        "--dir", type=Path, default=Path(".embfit/schema"), help="folder of the schemas (default: .embfit/schema)"
    )
    folder = parser.parse_args(list(arguments)).dir
    folder.mkdir(parents=True, exist_ok=True)
    loader = make_loader()
    choices, problems = sound_choices()
    found = schemas(loader, choices)
    for group, schema in found.items():
        write_text(folder / f"{group}.json", json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps({"yaml.schemas": settings(folder, list(found))}, indent=2))
    refuse(problems)
