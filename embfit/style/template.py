"""Templates: Markdown files with placeholders, from which prompts are made.

A template is named by its path, or only by its file name. A file name is looked for in the folder `style` of embfit's
own choices, of the folders of `EMBFIT_CONFIG_PATH` and of installed packs, so that packs share templates as they share
YAML files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from embfit.compose.search_path import added_sources, house
from embfit.errors import UserError
from embfit.suggestions import suggestion

GROUP = "style"  # the folder beside a style's YAML
PLACEHOLDERS = ("count", "document", "examples", "label", "language")
JUDGED = ("document", "query")
"""The placeholders of a template that asks for a grade of a pair."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NO_EXAMPLES = re.compile(r"\{examples\}\s*")


@dataclass(frozen=True)
class Template:
    """A text with placeholders.

    Args:
        text: the text; `{count}`, `{document}`, `{examples}`, `{label}` and `{language}` are replaced in it, and other
            braces stay as they are.
    """

    text: str

    @cached_property
    def digest(self) -> str:
        """Identifies the text: a changed template sends the requests again."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def reads(self, placeholder: str) -> bool:
        """Return whether the text has a placeholder."""
        return placeholder in _PLACEHOLDER.findall(self.text)

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text with the placeholders replaced, in one pass: braces in a document are never replaced."""
        text = self.text if values.get("examples") else _NO_EXAMPLES.sub("", self.text)
        return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text).strip()


def read_template(name: str, placeholders: Sequence[str] = PLACEHOLDERS) -> Template:
    """Read a template.

    Args:
        name: a path, or the name of a file in a folder `style`.
        placeholders: the allowed placeholders, of which `{document}` is required.

    Raises:
        UserError: the file is missing or not text, or has an unknown placeholder or no `{document}`.
    """
    file = find_template(name)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    for number, line in enumerate(text.splitlines(), start=1):
        for found in _PLACEHOLDER.findall(line):
            if found not in placeholders:
                raise UserError(
                    f"{file}:{number}: there is no placeholder {{{found}}}{suggestion(found, placeholders)}"
                )
    if "{document}" not in text:
        raise UserError(f"{file} has no {{document}}, so all documents would be asked about alike; add it")
    return Template(text)


def find_template(name: str) -> Path:
    """Return the file of a template.

    Raises:
        UserError: there is no template of that name, or more than one.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if len(path.parts) > 1:
        raise UserError(
            f"the template {name} is not there; name a Markdown file, or one in a folder {GROUP} by its name"
        )
    folders = [source.folder / GROUP for source in (house(), *added_sources())]
    found = [folder / name for folder in folders if (folder / name).is_file()]
    if len(found) > 1:
        raise UserError(f"the template {name} is there several times: {', '.join(map(str, found))}; rename all but one")
    if not found:
        known = [file.name for folder in folders if folder.is_dir() for file in folder.glob("*.md")]
        raise UserError(f"there is no template {name}{suggestion(name, known)}")
    return found[0]
