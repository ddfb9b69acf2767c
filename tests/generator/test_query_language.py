"""How often the language filter is wrong, on queries of real collections."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embfit.generator.query_language import is_in_another_language

FOREIGN = (
    "Welche Nebenwirkungen hat Insulin?",
    "Wie öffne ich eine Datei?",
    "Symptome von Asthma bei Kindern",
    "quels sont les effets secondaires de l'insuline",
    "comment lire un fichier",
    "tratamiento de la diabetes",
    "como abrir um arquivo",
    "hoe open ik een bestand",
    "как открыть файл",
    "糖尿病的治疗方法",
)
OWN = ("de", "fr", "es", "pt", "nl", "ru", "zh")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scifact", "medquad-small"])
def test_english_queries_are_english(name: str, shared_data: Path) -> None:
    lines = (shared_data / name / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    dropped = [text for text in texts if is_in_another_language(text, ["en"])]
    assert len(texts) > 1000
    assert len(dropped) <= 0.002 * len(texts), dropped[:10]


def test_most_short_queries_of_other_languages_are_told() -> None:
    assert sum(is_in_another_language(text, ["en"]) for text in FOREIGN) >= 8
    assert not any(is_in_another_language(text, OWN) for text in FOREIGN)
