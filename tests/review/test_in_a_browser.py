"""The page of cards in headless Chromium: keys, buttons, what the browser keeps, what is exported, and its width."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from embfit.review.card_page import Answer, Card, CardPage
from tests.report.test_in_a_browser import TELEPHONE, browser, visit

__all__ = ["browser"]  # a fixture

TEXT = 'the heart pumps </script><script>document.title = "broken"</script> & <b>blood</b>\nHearts again'


def review(cards: int = 4) -> CardPage:
    return CardPage(
        kind="review",
        name="handbook",
        source="one",
        answers=[Answer("keep", "a", "Keep"), Answer("drop", "x", "Drop")],
        cards=[
            Card(
                f"q{number}", f"what do <i>hearts</i> do {number}?", f"d{number % 2}", "Heart", TEXT,
                ["heart", "hearts"],
                [("style", "question"), ("rank by BM25", "3")], "round_trip" if number % 2 else "keep",
            )
            for number in range(cards)
        ],
        verdicts={"keep": ("keep", "keep"), "round_trip": ("drop: not found", "drop")},
        hint="… task.review=review.jsonl",
    )  # fmt: skip


def judge() -> CardPage:
    answers = [Answer(0, "0", "Not relevant"), Answer(1, "1", "Partly relevant"), Answer(2, "2", "Relevant")]
    cards = [Card(f"q{number}", "which?", f"d{number}", "", "text") for number in range(3)]
    return CardPage("judge", "scifact · test", "two", answers, cards, "embfit judge RUN --read judgements.jsonl")


# Uses the page as its reader would, and leaves what it saw in the title.
READER = """
<script>
(async () => {
  const seen = {};
  const $ = (id) => document.getElementById(id);
  const press = (key, more = {}) => document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
  const exported = [];
  URL.createObjectURL = (blob) => (exported.push(blob), "blob:none");
  HTMLAnchorElement.prototype.click = function () { seen.file = this.download; };
  const at = () => `${$("place").textContent}; ${$("state").textContent}; ${$("count").textContent}`;
  const kept = () => JSON.parse(localStorage.getItem(JSON.parse($("data").textContent).place));
  const save = async () => { press("e"); return (await exported.at(-1).text()).trim().split("\\n").map(JSON.parse); };
  SCRIPT
  document.title = JSON.stringify(seen);
})();
</script></body>
"""

REVIEWING = """
  seen.query = $("query").textContent;
  seen.text = $("text").textContent;
  seen.marks = [...document.querySelectorAll("article mark")].map((mark) => mark.textContent);
  seen.facts = [...document.querySelectorAll("#facts > div")].map((one) => one.textContent);
  seen.start = at();
  press("a"); seen.kept = at(); seen.focus = document.activeElement.id;
  press("X"); seen.dropped = at(); seen.said = $("said").textContent;
  press("x", { repeat: true }); press("a", { ctrlKey: true }); seen.ignored = at();
  press("Backspace"); seen.undone = at();
  press("a"); press(" "); seen.skipped = at();
  press("ArrowLeft"); press("ArrowLeft"); seen.back = at();
  press("x"); seen.changed = at();
  document.querySelector("[data-key='a']").click(); seen.clicked = at();
  seen.done = $("said").textContent;
  const all = (selector, of) => [...document.querySelectorAll(selector)].map(of);
  seen.pressed = all(".answers .answer", (button) => button.getAttribute("aria-pressed"));
  seen.storage = kept();
  seen.agreed = all("#agreed tr", (row) => [...row.children].map((cell) => cell.textContent).join(" | "));
  press("f"); seen.hidden = [...document.querySelectorAll("#facts > div")].length;
  press("?"); seen.help = $("help").open; press("x"); seen.closed = ($("help").close(), $("help").open);
  seen.exported = await save();
  seen.labels = all("button", (one) => one.getAttribute("aria-label") ?? one.textContent).every((one) => one.trim());
"""


def used(browser: str, page: CardPage, script: str, folder: Path) -> dict[str, Any]:
    """Return what a reader who does what a script says has seen."""
    path = folder / "page.html"
    path.write_text(page.html().replace("</body>", READER.replace("SCRIPT", script)), encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", visit(browser, path, folder))
    assert title
    found: dict[str, Any] = json.loads(html.unescape(title[1]))
    return found


@pytest.mark.slow
def test_queries_are_reviewed_by_keys(browser: str, tmp_path: Path) -> None:
    seen = used(browser, review(), REVIEWING, tmp_path)
    assert seen == {
        "query": "what do <i>hearts</i> do 0?",
        "text": TEXT,
        "marks": ["Heart", "heart", "Hearts"],
        "facts": ["stylequestion", "rank by BM253", "Filters:keep"],
        "start": "Card 1 of 4; ; 0 of 4 decided",
        "kept": "Card 2 of 4; ; 1 of 4 decided",
        "focus": "card",
        "dropped": "Card 3 of 4; ; 2 of 4 decided",
        "said": "Drop. Card 3 of 4.",
        "ignored": "Card 3 of 4; ; 2 of 4 decided",
        "undone": "Card 2 of 4; ; 1 of 4 decided",
        "skipped": "Card 4 of 4; ; 3 of 4 decided",
        "back": "Card 2 of 4; Keep; 3 of 4 decided",
        "changed": "Card 4 of 4; ; 3 of 4 decided",
        "clicked": "Card 4 of 4; Keep; 4 of 4 decided",
        "done": "Keep. All cards are decided; press e to export.",
        "pressed": ["true", "false"],
        "storage": [['["q0","d0"]', "keep"], ['["q2","d0"]', "skip"], ['["q1","d1"]', "drop"], ['["q3","d1"]', "keep"]],
        "agreed": ["keep | 1 | 1 | 100 %", "drop: not found | 2 | 1 | 50 %", "together | 3 | 2 | 67 %"],
        "hidden": 2,
        "help": True,
        "closed": False,
        "file": "review.jsonl",
        "exported": [
            {"query_id": f"q{number}", "document_id": f"d{number % 2}", "query": f"what do <i>hearts</i> do {number}?",
             "answer": answer}
            for number, answer in enumerate(("keep", "drop", "skip", "keep"))
        ],
        "labels": True,
    }  # fmt: skip


@pytest.mark.slow
def test_results_are_judged_and_kept_when_the_page_is_opened_again(browser: str, tmp_path: Path) -> None:
    judging = 'press("2"); press("0"); press("7"); press(" "); seen.exported = await save(); seen.end = at();'
    seen = used(browser, judge(), judging, tmp_path)
    assert seen["file"] == "judgements.jsonl"
    assert seen["exported"] == [
        {"query_id": f"q{number}", "document_id": f"d{number}", "query": "which?", "grade": grade}
        for number, grade in enumerate((2, 0, None))
    ]
    assert seen["end"] == "Card 3 of 3; Skipped; 3 of 3 decided"
    again = """
      seen.start = at(); seen.storage = kept(); seen.calm = $("trouble").hidden;
      Storage.prototype.setItem = () => { throw new Error("full"); };
      press("1"); seen.trouble = $("trouble").textContent; seen.end = at();
    """
    opened = used(browser, judge(), again, tmp_path)
    assert opened["start"] == "Card 1 of 3; Relevant; 3 of 3 decided"
    assert opened["calm"]
    assert opened["trouble"] == "This browser did not keep your last decision; export before you close the page."
    assert opened["end"] == "Card 1 of 3; Partly relevant; 3 of 3 decided"
    assert opened["storage"] == [['["q0","d0"]', 2], ['["q1","d1"]', 0], ['["q2","d2"]', "skip"]]


@pytest.mark.slow
def test_thousands_of_cards_work(browser: str, tmp_path: Path) -> None:
    script = 'for (let n = 0; n < 300; n++) press("ax"[n % 2]); seen.end = at(); seen.kept = kept().length;'
    seen = used(browser, review(5000), script, tmp_path)
    assert seen == {"end": "Card 301 of 5000; ; 300 of 5000 decided", "kept": 300}


@pytest.mark.slow
@pytest.mark.parametrize("page", [review(), judge()], ids=["review", "judge"])
def test_the_page_fits_a_telephone(browser: str, page: CardPage, tmp_path: Path) -> None:
    path = tmp_path / "telephone.html"
    path.write_text(TELEPHONE.replace("{page}", html.escape(page.html())), encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", visit(browser, path, tmp_path))
    assert title
    assert title[1].strip() == "380 380"


def test_a_document_of_several_cards_is_written_once_and_escaped() -> None:
    text = review(100).html()
    assert text.count("Hearts again") == 2
    assert 'document.title = "broken"' not in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "innerHTML" not in text
