"""The files of a new config pack."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from embfit.errors import ConfigError
from embfit.version import __version__

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "0.1.0"          # raise it with every change: runs record it with each value
description = "Choices for embfit."
requires-python = ">=3.11"
dependencies = ["embfit>={version}"]

[project.entry-points."embfit.configs"]
{name} = "{module}.conf"

[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""

README = """\
# {name}

Choices for embfit, as a pip package.

| file | chosen with |
|---|---|
| `{module}/conf/model/{name}-minilm.yaml` | `model={name}-minilm` |
| `{module}/conf/experiment/{name}.yaml` | `experiment={name}` |

Put a file into `{module}/conf/GROUP/NAME.yaml` and it can be chosen with `GROUP=NAME`. Begin names with `{name}`:
a name means one thing in an environment, and a second file of the same name is an error. Code that a YAML names in
`_target_` goes into `{module}/`.

```
pip install -e .         # or from a git tag: pip install git+https://HOST/{name}@v0.1.0
embfit pack check        # checks every YAML against the code that it names
pytest                   # does the same in continuous integration
python -m embfit experiment={name}
```
"""

MODEL = """\
# Say here when to choose this model. It reads only the start of documents, so that training is quicker.
# python -m embfit model={name}-minilm
defaults:
  - minilm                 # embfit's own choice; this file only states the differences
  - _self_

max_length: 128
"""

EXPERIMENT = """\
# @package _global_
# Say here when to choose this experiment: the recipe of this team.
# python -m embfit experiment={name}
defaults:
  - override /model: {name}-minilm

training:
  lr: 3.0e-5
"""

TEST = '''\
"""Every choice of this pack composes and passes embfit's checks."""

from pathlib import Path

import pytest
from embfit.compose.packs import check_choice, pack_at

PACK = pack_at(Path(__file__).parents[1])


@pytest.mark.parametrize("choice", list(PACK.choices()), ids=str)
def test_choice_passes(choice):
    check_choice(PACK, choice)
'''


def write_pack(name: str, parent: Path) -> Path:
    """Write a pack that installs, composes and passes its own test; return its folder.

    Raises:
        ConfigError: the name cannot be that of a package and of a choice, or it is taken.
    """
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(
            f"'{name}' cannot name a pack; use lower-case letters, digits and hyphens, such as legal-search"
        )
    if importlib.util.find_spec(module):
        raise ConfigError(f"a Python package {module} exists already; choose another name")
    folder = parent / name
    if folder.exists():
        raise ConfigError(f"{folder} exists already; choose another name, or remove the folder")
    files = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"{module}/__init__.py": '"""Choices for embfit, and the code that they name."""\n',
        f"{module}/conf/model/{name}-minilm.yaml": MODEL,
        f"{module}/conf/experiment/{name}.yaml": EXPERIMENT,
        "tests/test_choices.py": TEST,
    }
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            text.replace("{name}", name).replace("{module}", module).replace("{version}", __version__),
            encoding="utf-8",
        )
    return folder
