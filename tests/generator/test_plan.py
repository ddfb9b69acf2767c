"""What is asked about each document, and how many of which style."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from embfit.compose.search_path import house
from embfit.errors import ConfigError
from embfit.generator import ApiGenerator, Budget
from embfit.generator.plan import (
    UNNAMED_LABELS,
    in_shard,
    plan_request,
    queries_per_document,
    read_shard,
    share_out,
)
from embfit.style import Style, StyleExample
from embfit.style.template import GROUP
from tests.generator.conftest import STYLE, new_requests


@pytest.mark.parametrize(
    ("documents", "queries"), [(10, 10), (5_000, 10), (5_183, 9), (12_500, 4), (20_000, 3), (10**6, 3)]
)
def test_small_collections_get_more_queries_a_document(documents: int, queries: int) -> None:
    assert queries_per_document("auto", documents) == queries
    assert queries_per_document(7, documents) == 7


def test_styles_have_their_shares() -> None:
    shares = {"question": 0.5, "keywords": 0.25, "claim": 0.25, "title": 0.0}
    counted = Counter[str]()
    for number in range(2_000):
        given = share_out(shares, 3, f"document {number}", seed=0)
        assert sum(given.values()) == 3
        assert 1 <= given["question"] <= 2
        counted.update(given)
    assert counted["question"] / 6_000 == pytest.approx(0.5, abs=0.01)
    assert counted["keywords"] / 6_000 == pytest.approx(0.25, abs=0.01)
    assert "title" not in counted
    assert share_out(shares, 4, "any", 0) == {"question": 2, "keywords": 1, "claim": 1}


def test_an_id_depends_on_all_that_an_answer_depends_on() -> None:
    [request] = new_requests(1)
    document, settings = request.document, {"model": "tiny", "form": "chat"}

    def planned(**changed: object) -> str:
        values = {
            "document": document, "style": "question", "chosen": STYLE, "examples": [], "count": 2,
            "settings": settings, "language": None, "seed": 0, "repeat": 0,
        }  # fmt: skip
        return plan_request(**{**values, **changed}).id

    assert planned() == request.id
    others = [
        planned(document=replace(document, text="another text")),
        planned(style="claim"),
        planned(chosen=Style(template="claim.md", label="Question")),
        planned(count=3),
        planned(settings={**settings, "temperature": 0.1}),
        planned(settings={**settings, "model": "other"}),
        planned(language="German"),
        planned(seed=1),
        planned(repeat=1),
    ]
    assert len({request.id, *others}) == 10
    assert planned(document=replace(document, id="moved", row=9)) == request.id  # the text is what counts
    more = plan_request(document, "question", STYLE, [], 3, settings, None, 0)
    assert more.entry.family == request.entry.family


def test_a_label_is_part_of_an_id_where_a_model_reads_it() -> None:
    [request] = new_requests(1)
    example = StyleExample("how does the heart pump", "the heart pumps blood")

    def planned(label: str, examples: Sequence[StyleExample] = (), form: str = "chat", style: str = "question") -> str:
        settings = {"model": "tiny", "form": form}
        asked = Style(template=f"{style}.md", label=label)
        return plan_request(request.document, style, asked, examples, 2, settings, None, 0).id

    assert planned("Question") == planned("Issue") == request.id  # without examples no model reads it
    assert planned("Question", [example]) != planned("Issue", [example])
    assert planned("Question", form="completion") != planned("Issue", form="completion")


def test_a_journal_that_was_paid_for_stays_good_where_labels_are_those_of_the_styles() -> None:
    [request] = new_requests(1)
    settings = {"model": "tiny", "form": "chat"}
    example = StyleExample("how does the heart pump", "the heart pumps blood")
    asked = plan_request(request.document, "question", STYLE, [example], 2, settings, None, 0)
    assert asked.id == "34ac779ab522b8ea1c35"
    shipped = {file.stem: OmegaConf.load(file).label for file in (house().folder / GROUP).glob("*.yaml")}
    assert shipped == UNNAMED_LABELS


def test_a_document_cannot_fill_placeholders() -> None:
    [request] = new_requests(1)
    tricky = replace(request.document, text="say {count} and {label} {document}")
    prompt = plan_request(tricky, "question", STYLE, [], 2, {"model": "x", "form": "chat"}, "German", 0).prompt
    assert '"""\nsay {count} and {label} {document}\n"""' in prompt
    assert prompt.startswith("Write 2 different questions")
    assert "- Write in German." in prompt
    assert "{examples}" not in prompt


def test_shards_part_all_requests() -> None:
    requests = [request.id for request in new_requests(200)]
    parts = [
        [request for request in requests if in_shard(request, read_shard(shard))] for shard in ("0/3", "1/3", "2/3")
    ]
    assert sorted(request for part in parts for request in part) == sorted(requests)
    assert min(map(len, parts)) > 40
    for wrong in ("3/3", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(ValueError, match="expected NUMBER/COUNT"):
            read_shard(wrong)


def test_values_that_cannot_be() -> None:
    styles = {"question": STYLE}
    with pytest.raises(ValueError, match="name of an environment variable") as error:
        ApiGenerator(styles=styles, key_variable="sk-12345")
    assert "12345" not in str(error.value)
    with pytest.raises(ValueError, match="no style has a share"):
        ApiGenerator(styles={"question": replace(STYLE, share=0.0)})
    with pytest.raises(ValueError, match="no price is"):
        ApiGenerator(styles=styles, budget=Budget(cost=1.0))
    with pytest.raises(ValueError, match="again: expected malformed, refused or both, got answered"):
        ApiGenerator(styles=styles, again=["answered"])
    with pytest.raises(ConfigError, match="needs a model"):
        ApiGenerator(styles=styles).plan(None, [])
