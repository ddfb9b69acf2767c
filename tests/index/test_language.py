"""The language of documents, told from their texts."""

import pytest

from embfit.index.language import SNOWBALL, detect_language, language_of
from embfit.model.languages import model_languages
from embfit.store import Store
from tests.conftest import make_collection

SENTENCES = {
    "arabic": "كيف يمكنني تغيير كلمة المرور الخاصة بي في التطبيق؟",
    "danish": "Hvordan kan jeg ændre min adgangskode i appen?",
    "dutch": "Hoe kan ik mijn wachtwoord wijzigen in de app?",
    "english": "How can I change my password in the app?",
    "finnish": "Kuinka voin vaihtaa salasanani sovelluksessa?",
    "french": "Comment puis-je changer mon mot de passe dans l'application ?",
    "german": "Wie kann ich mein Passwort in der App ändern?",
    "hindi": "मैं ऐप में अपना पासवर्ड कैसे बदल सकता हूँ?",
    "italian": "Come posso cambiare la mia password nell'app?",
    "portuguese": "Como posso alterar a minha palavra-passe na aplicação?",
    "russian": "Как я могу изменить свой пароль в приложении?",
    "spanish": "¿Cómo puedo cambiar mi contraseña en la aplicación?",
    "swedish": "Hur kan jag ändra mitt lösenord i appen?",
    "turkish": "Uygulamada şifremi nasıl değiştirebilirim?",
}


def collection(*texts: str):
    return make_collection({f"d{row}": text for row, text in enumerate(texts)}, {"q": "x"}, {})


@pytest.mark.parametrize(("language", "sentence"), SENTENCES.items())
def test_a_sentence_tells_its_language(store: Store, language: str, sentence: str) -> None:
    assert language_of("auto", collection(sentence, sentence), store, "evaluator.language=auto") == language


def test_what_has_no_stemmer_and_what_is_mixed_is_taken_as_it_is(store: Store, caplog) -> None:
    caplog.set_level("INFO")
    assert language_of("auto", collection("我怎样才能更改密码？"), store, "evaluator.language=auto") is None
    assert caplog.messages[-1] == (
        "100% of the documents are in one language (zh): BM25 uses words as they are (evaluator.language=auto)"
    )
    numbers = collection("5.91e-01 3.46e-01 6.40e-01 3.74e-01 3.31e-01")
    assert language_of("auto", numbers, store, "evaluator.language=auto") is None
    assert caplog.messages[-1] == (
        "100% of the documents are in no language (numbers, or code): BM25 uses words as they are "
        "(evaluator.language=auto)"
    )
    mixed = collection(SENTENCES["english"], SENTENCES["german"])
    assert language_of("auto", mixed, store, "evaluator.language=auto") is None
    assert (detect_language(mixed, store).share, detect_language(mixed, store).is_clear) == (0.5, False)


def test_a_language_that_is_named_is_not_told_from_texts(store: Store) -> None:
    assert language_of("english", collection(SENTENCES["german"]), store, "x") == "english"
    assert language_of(None, collection(SENTENCES["german"]), store, "x") is None
    assert store.built == []


def test_english_is_used_without_a_word_and_told_once_for_a_corpus(store: Store, caplog) -> None:
    english = collection(SENTENCES["english"], "A page about the harbor.")
    assert language_of("auto", english, store, "x") == language_of("auto", english, store, "x") == "english"
    assert store.built == ["language"]
    assert not [message for message in caplog.messages if "BM25" in message]


def test_every_stemmer_can_be_told() -> None:
    from typing import get_args

    from embfit.index.lexical import Language

    assert {*SNOWBALL.values()} == {*get_args(Language)}


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlanguage: en\nlicense: mit\n---\n# A model\n", {"en"}),
        ("---\nlanguage:\n- en\n- de\n---\n", {"en", "de"}),
        ("---\nlanguage: eng\n---\n", {"en"}),
        ("---\nlanguage: no\n---\n", {"no"}),  # which YAML 1.1 reads as false
        ("---\nlanguage:\n- sv\n- no\n---\n", {"sv", "no"}),
        ("---\nlanguage: multilingual\n---\n", None),
        ("---\nlicense: mit\n---\n", None),
        ("---\nlanguage: [\n---\n", None),
        ("# A model\n", None),
    ],
)
def test_a_models_card_says_its_languages(tmp_path, card: str, expected) -> None:
    (tmp_path / "README.md").write_text(card)
    assert model_languages(tmp_path) == expected
