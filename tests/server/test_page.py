"""The search page in headless Chromium: two versions, driven by the keyboard, and on a telephone."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from starlette.responses import HTMLResponse
from transformers import PreTrainedTokenizerFast

from embfit.bundle import BundleVersions
from embfit.index import TokenBuilder
from embfit.model import Encoder
from tests.bundle.conftest import CHANGED, Make
from tests.conftest import new_late_encoder
from tests.report.test_in_a_browser import QUIET, browser
from tests.server.conftest import Served, serving, until
from tests.server.test_embeddings import error
from tests.server.test_live_version import other

__all__ = ["browser"]  # a fixture

# Uses the page in a frame as its reader would, and leaves what it saw in the title.
READER = """
<!doctype html><iframe src="/?q=the%20bacterial%20infections&k=5" style="width: {width}px; height: 900px"></iframe>
<script>
const frame = document.querySelector("iframe");
const seen = {{}};
const inside = () => frame.contentDocument;
const texts = (selector) => [...inside().querySelectorAll(selector)].map((one) => one.textContent);
const until = async (true_) => {{ while (!true_()) await new Promise((go) => setTimeout(go, 10)); }};
const press = (key) => inside().activeElement.dispatchEvent(
  new frame.contentWindow.KeyboardEvent("keydown", {{ key, bubbles: true, cancelable: true }}));
const found = () => inside().querySelectorAll("#columns article").length;
const at = () => {{
  const focused = inside().activeElement;
  const columns = [...inside().querySelectorAll("#columns > section")];
  const column = columns.indexOf(focused.closest("section"));
  return focused.tagName + (column < 0 ? "" : " " + column + " " + focused.querySelector(".rank").textContent);
}};
frame.addEventListener("load", async () => {{
  await until(() => found() > 0);
  seen.columns = texts("h2").join(" | ");
  seen.first = texts("#columns section:first-child .id")[0];
  seen.marks = [...new Set(texts("#columns section:first-child mark"))].sort().join(" ");
  seen.state = inside().querySelector("#state").textContent.replace(/[0-9]+ ms/g, "N ms");
  const root = inside().documentElement;
  seen.width = root.scrollWidth + "/" + root.clientWidth;
  seen.shown = [...inside().querySelectorAll("#columns > section")].filter((one) => one.offsetParent).length;
  const query = inside().querySelector("#query");
  query.focus(); press("ArrowDown"); press("ArrowDown"); seen.down = at();
  press("ArrowRight"); seen.right = at();
  press("Enter"); seen.open = inside().activeElement.className;
  press("Escape"); seen.back = at();
  query.value = "kidneys urine";
  query.dispatchEvent(new frame.contentWindow.Event("input"));
  await until(() => {ready});
  seen.address = frame.contentWindow.location.search;
  query.value = " ";
  query.dispatchEvent(new frame.contentWindow.Event("input"));
  await until(() => found() === 0);
  document.title = JSON.stringify(seen);
}});
</script>
"""


FOUND = 'texts("#columns section:first-child mark").includes("urine")'


def visit(browser: str, served: Served, folder: Path, page: str, width: int, ready: str = FOUND) -> dict[str, object]:
    """Let a reader use the page in a frame of some width; return what it saw.

    Args:
        browser: Chromium.
        served: the server.
        folder: for the browser's profile.
        page: a name for the frame's page.
        width: of the frame, in pixels.
        ready: the condition, in JavaScript, that says that the second query was answered.
    """

    @served.server.config.app.get(f"/{page}")  # type: ignore[union-attr]
    async def reader() -> HTMLResponse:
        return HTMLResponse(READER.format(width=width, ready=ready))

    address = f"http://{served.address[0]}:{served.address[1]}/{page}"
    command = [browser, *QUIET, f"--user-data-dir={folder / page}", "--window-size=1200,1000", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr  # an error, or a request that the page's own policy refused
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stdout[-2000:]
    return json.loads(title[1].replace("&amp;", "&"))  # type: ignore[no-any-return]


def test_the_page_compares_two_versions(
    browser: str, versions: BundleVersions, make: Make, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    make(encoder=other(tiny_encoder), texts=CHANGED)
    with serving(versions, beside=2) as served:
        until(lambda: served.service.beside)
        wide = visit(browser, served, tmp_path, "wide", 1000)
        assert wide == {
            "columns": "docs@1 (answers) | docs@2",
            "first": served.post("/v1/search", query="the bacterial infections", k=1).json()["data"][0]["documents"][0][
                "id"
            ],
            "marks": "bacterial infection",
            "state": "docs@1: N ms, docs@2: N ms in the server, N ms in all",
            "width": "1000/1000",
            "shown": 2,
            "down": "ARTICLE 0 2",
            "right": "ARTICLE 1 2",
            "open": "open",
            "back": "INPUT",
            "address": "?q=kidneys+urine&k=5",
        }
        narrow = visit(browser, served, tmp_path, "narrow", 380)
        assert (narrow["width"], narrow["shown"]) == ("380/380", 1)
        assert narrow | {"width": 0, "shown": 0} == wide | {"width": 0, "shown": 0}


def test_the_page_marks_what_late_interaction_matched(
    browser: str, versions: BundleVersions, make: Make, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    make(encoder=new_late_encoder(tokenizer), builder=TokenBuilder())
    with serving(versions, serve=2) as served:
        seen = visit(browser, served, tmp_path, "late", 1000, ready="true")
        [found] = served.post("/v1/search", query="the bacterial infections", k=1, matches=True).json()["data"]
        answer = served.post("/v1/search", query="the bacterial infections", k=5, matches=True).json()
    marked = {
        document["text"][start:stop]
        for document in answer["data"][0]["documents"]
        for start, stop, share in document["matched"]["text"]
        if share >= 0.01
    }
    assert seen["first"] == found["documents"][0]["id"]
    assert seen["marks"] == " ".join(sorted(marked))


def test_a_version_beside_answers_those_who_ask_for_it(
    versions: BundleVersions, make: Make, tiny_encoder: Encoder
) -> None:
    make(encoder=other(tiny_encoder), texts=CHANGED)
    with serving(versions, beside=2) as served:
        until(lambda: served.service.beside)
        for asked, label in ((None, "docs@1"), ("docs@1", "docs@1"), ("docs@2", "docs@2"), ("2", "docs@2")):
            headers = {} if asked is None else {"x-embfit-if-version": asked}
            answer = served.client.post("/v1/search", json={"query": "an itch", "k": 12}, headers=headers)
            assert (answer.headers["x-embfit-bundle"], answer.json()["model"]) == (label, label)
            ids = {found["id"] for found in answer.json()["data"][0]["documents"]}
            assert ("d12" in ids) is (label == "docs@2")
        answer = served.client.get("/info", headers={"x-embfit-if-version": "docs@3"})
        assert answer.status_code == 412
        assert "docs@1 and docs@2 answers" in error(answer)["message"]
        assert served.client.get("/info").json()["beside"] == "docs@2"


def test_text_stands_out_in_light_and_dark(served: Served) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", served.client.get("/").text, re.DOTALL)
    assert re.search(r"@media \(prefers-color-scheme: dark\) \{\s*:root", served.client.get("/").text)
    for theme in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", theme))
        for text, behind in [
            *((one, "page") for one in ("ink", "muted", "accent", "better", "worse")),
            ("ink", "mark"),
        ]:
            assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)  # WCAG 2.2, 1.4.3
        assert contrast(colours["muted"], colours["soft"]) >= 4.5  # a result that has the focus


def contrast(a: str, b: str) -> float:
    """The contrast of two colours, as WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


def test_the_page_needs_nothing_else(served: Served) -> None:
    answer = served.client.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; connect-src 'self'")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", answer.text)
    assert "innerHTML" not in answer.text  # texts of documents are shown, never read as HTML
