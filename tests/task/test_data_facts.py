"""What a task says about its model and its documents before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from embfit.model import Encoder
from embfit.store import Store
from embfit.task.data_facts import warn_of_language
from tests.conftest import make_collection

GERMAN = ("Wie kann ich mein Passwort in der App ändern?", "Der Hafen ist im Winter für kleine Boote geschlossen.")
ENGLISH = ("How can I change my password in the app?", "In winter the harbor is closed to small boats.")


@pytest.mark.parametrize(
    ("card", "texts", "warned"),
    [
        ("---\nlanguage: en\n---\n# A model\n", GERMAN, True),
        ("---\nlanguage: en\n---\n# A model\n", ENGLISH, False),
        ("---\nlanguage: [en, de]\n---\n# A model\n", GERMAN, False),
        ("---\nlanguage: en\n---\n# A model\n", (GERMAN[0], ENGLISH[1]), False),  # no language is clearly theirs
        ("# A model whose card names no language\n", GERMAN, False),
    ],
)
def test_a_model_that_is_not_made_for_the_documents_language_is_warned_of(
    tiny_encoder: Encoder,
    store: Store,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    card: str,
    texts: tuple[str, str],
    warned: bool,
) -> None:
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    tiny_encoder.source = str(tmp_path)
    documents = {f"d{row}": text for row, text in enumerate(texts)}
    warn_of_language(tiny_encoder, make_collection(documents, {"q": "x"}, {}), store)
    expected = (
        f"{tmp_path} is made for en, as its README.md says, and 100% of the documents are in another language (de); "
        "choose a model for it, such as experiment=multilingual"
    )
    assert caplog.messages == ([expected] if warned else [])
