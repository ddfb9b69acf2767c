"""The page in headless Chromium: no error, no request, and an explorer that works."""

import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from embfit.report import write_report
from tests.report.reports import collection, report
from tests.report.test_assessment import FOUND

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
]

# Uses the explorer as a reader would, and leaves what it saw in the document.
READER = """
<script>
const seen = [];
const list = () => [...document.querySelectorAll(".queries .asked")].map((asked) => asked.textContent.slice(9, 10));
const set = (name, value) => {
  const control = document.querySelector(`#queries [name=${name}]`);
  control.value = value;
  control.dispatchEvent(new Event("input", { bubbles: true }));
};
seen.push(["start", ...list()].join(" "));
seen.push(["changes", ...[...document.querySelectorAll(".queries .change")].map((c) => c.textContent)].join(" "));
set("sort", "loss"); seen.push(["loss", ...list()].join(" "));
set("sort", "worst"); seen.push(["worst", ...list()].join(" "));
set("subset", "unseen"); seen.push(["unseen", ...list()].join(" "));
set("subset", ""); set("search", "QUESTION 2"); seen.push(["search", ...list()].join(" "));
document.querySelector(".queries details").open = true;
setTimeout(() => {
  const columns = [...document.querySelectorAll(".rankings > div")];
  seen.push("columns " + columns.map((c) => c.querySelector("h3").textContent).join(" | "));
  seen.push("first " + columns.map((c) => c.querySelector(".about").textContent).join(" | "));
  seen.push("relevant " + document.querySelector(".wanted .about").textContent);
  seen.push("width " + (document.documentElement.scrollWidth <= document.documentElement.clientWidth));
  const log = document.createElement("ul");
  log.id = "seen";
  for (const line of seen) log.append(Object.assign(document.createElement("li"), { textContent: line }));
  document.body.append(log);
}, 100);
</script></body>
"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = os.environ.get("EMBFIT_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium on the path; set EMBFIT_BROWSER")
    return found


# A telephone: the page in a frame, since a window is never narrower than 500 pixels.
TELEPHONE = """
<iframe style="width: 380px; height: 900px" srcdoc="{page}"></iframe>
<script>
document.querySelector("iframe").addEventListener("load", (event) => {
  const root = event.target.contentDocument.documentElement;
  const wide = [...root.querySelectorAll("body *:not(.scrolled *)")].filter(
    (one) => one.getBoundingClientRect().right > 381,
  );
  document.title = `${root.clientWidth} ${root.scrollWidth} ${wide.map((one) => one.tagName).join(" ")}`;
});
</script>
"""


def visit(browser: str, page: Path, folder: Path) -> str:
    """Open a page; return the document that its scripts left."""
    command = [browser, *QUIET, f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr  # an error, or a request that the page's own policy refused
    return done.stdout


@pytest.mark.slow
def test_the_page_works_in_a_browser(browser: str, tmp_path: Path) -> None:
    write_report(report(), tmp_path, {"seed": 0}, {"seed": "command line"}, collection())
    page = tmp_path / "used.html"
    page.write_text((tmp_path / "report.html").read_text().replace("</body>", READER))
    found = visit(browser, page, tmp_path)
    seen = dict(item.split(" ", 1) for item in re.findall(r"<li>([a-z]+ [^<]*)</li>", found))
    assert seen == {
        "start": "2 3 4 1",
        "changes": "+0.50 +0.50 −0.13 0.00",
        "loss": "4 1 2 3",
        "worst": "4 2 3 1",
        "unseen": "4 3",
        "search": "2",
        "columns": "base 0.500 | tuned 1.000",
        "first": "d1 · 1.000 | d2 · 1.000 · relevant, grade 1",
        "relevant": "d2 · base: rank 3 · tuned: rank 1",
        "width": "true",
    }


@pytest.mark.slow
def test_the_page_fits_a_telephone(browser: str, tmp_path: Path) -> None:
    config = {"a_long_name_of_a_key": {"and_one_below_it": "/a/path/that/is/longer/than/a/telephone/is/wide" * 2}}
    sections = {"assessment": FOUND}  # whose tables are the widest
    write_report(report(sections=sections), tmp_path, config, {}, collection(), "python -m embfit " + "x" * 100)
    page = tmp_path / "telephone.html"
    page.write_text(TELEPHONE.replace("{page}", html.escape((tmp_path / "report.html").read_text())))
    found = visit(browser, page, tmp_path)
    assert re.search(r"<title>(.*?)</title>", found)[1].strip() == "380 380"
