"""The languages of a model, from its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CARD = "README.md"
ANY = ("multilingual", "mul", "xx")  # values in cards of models for many languages
NORWEGIAN = "no"  # unquoted, YAML 1.1 reads it as false


def model_languages(folder: Path) -> frozenset[str] | None:
    """Return the ISO 639-1 codes of the languages in a model's card; None if it names none, or many.

    Args:
        folder: the model's folder, whose `README.md` begins with YAML between lines of `---`, as on the Hub.
    """
    card = folder / CARD
    if not card.is_file():
        return None
    head = card.read_text(encoding="utf-8", errors="replace").removeprefix("\ufeff").split("---\n", 2)
    if len(head) < 3 or head[0].strip():
        return None
    try:
        said: Any = yaml.safe_load(head[1])
    except yaml.YAMLError:
        return None
    named = said.get("language") if isinstance(said, dict) else None
    listed = named if isinstance(named, list) else [] if named is None else [named]
    codes = {NORWEGIAN if name is False else str(name).lower() for name in listed}
    return None if not codes or codes & {*ANY} else frozenset({"eng": "en", "english": "en"}.get(c, c) for c in codes)
