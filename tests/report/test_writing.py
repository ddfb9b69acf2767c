import json
import math
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from embfit.data.qrels import read_qrels
from embfit.data.trec import read_run
from embfit.evaluator.metrics import per_query
from embfit.records import Report
from embfit.report import write_report
from tests.report.reports import BASE, METRICS, collection, report, system


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = {"seed": 0, "training": {"epochs": 3, "lr": 5e-5}, "evaluator": {"metrics": list(METRICS), "dims": None}}
    origins = {"seed": "conf/config.yaml:15", "training.epochs": "command line"}
    write_report(report(), tmp_path / "run", config, origins, collection(), "python -m embfit training.epochs=3")
    return tmp_path / "run"


def test_report_json_holds_what_scripts_rely_on(folder: Path) -> None:
    written = json.loads((folder / "report.json").read_text())
    base = written["systems"]["base"]
    assert base["metrics"] == {"ndcg@10": pytest.approx((1 + 1 / 2 + 1 / 2 + 1 / np.log2(3)) / 4), "mrr@10": 13 / 24}
    assert (base["split"], base["queries"], base["left_out"], base["dims"]) == ("test", 4, 0, {})
    assert base["subsets"]["unseen"] == {
        "queries": 2,
        "metrics": {"ndcg@10": pytest.approx((1 / 2 + 1 / np.log2(3)) / 2), "mrr@10": (1 / 3 + 1 / 2) / 2},
    }
    assert base["per_query"]["mrr@10"] == {"q1": 1, "q2": 1 / 3, "q3": 1 / 3, "q4": 1 / 2}
    assert base["facts"]["seconds"] == 1.5
    first = written["comparisons"][0]
    assert {name: first[name] for name in ("a", "b", "metric", "subset", "queries", "wins", "ties", "losses")} == {
        "a": "base",
        "b": "tuned",
        "metric": "ndcg@10",
        "subset": "all",
        "queries": 4,
        "wins": 2,
        "ties": 1,
        "losses": 1,
    }
    assert first["ci95"] is None  # of four queries
    assert 0 < first["p"] <= 1
    assert len(written["comparisons"]) == 2 * 3 * 2  # pairs, subsets, metrics
    assert written["training"]["epochs"] == 3
    assert written["timings"] == {"data": 0.5, "training": 61.0}


def test_rankings_reproduce_the_metrics(folder: Path) -> None:
    written = json.loads((folder / "report.json").read_text())
    qrels = read_qrels(folder / "rankings" / "test.qrels")
    for name, found in written["systems"].items():
        assert per_query(read_run(folder / "rankings" / f"{name}.trec"), qrels, METRICS) == found["per_query"]


def test_the_page_asks_for_nothing_from_elsewhere(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "default-src 'none'" in page
    fetched = re.findall(r"""(?:src|href|action)\s*=\s*["']?([^"'\s>]+)|url\(([^)]*)\)|@import\s*([^;]*)""", page)
    addresses = {next(filter(None, found)) for found in fetched}
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|<meta http-equiv', "", page)


def test_the_page_says_what_was_found(folder: Path) -> None:
    page = (folder / "report.html").read_text().replace("<wbr>", "")
    text = " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())
    for said in (
        "small",
        "test split · 4 queries · 5 documents",
        "No significant difference between base and tuned: nDCG@10 0.6577 → 0.8750",
        "tuned − base +0.2173 +0.2917",
        "unseen 2 queries 0.5655 0.7500 +0.1845",
        "nDCG by depth of the list",
        "merged queries 2",
        "training 1 min 1 s",
        "python -m embfit training.epochs=3",
        "training.epochs 3 command line",
        'evaluator.metrics ["ndcg@10", "mrr@10"]',
        "evaluator.dims null",
    ):
        assert said in text


def test_texts_cannot_break_out_of_the_page(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    data = re.search(r'<script type="application/json" id="explorer-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    explorer = json.loads(data[1])
    assert "text of <b>document</b> 1 </script>" in [document["text"] for document in explorer["documents"]]
    assert "<b>document" not in page


def test_a_system_named_like_a_path_gets_a_plain_file(tmp_path: Path) -> None:
    write_report(report(evaluations=[system("org/my model", BASE)], comparisons=[]), tmp_path, {}, {})
    assert (tmp_path / "rankings" / "org_my_model.trec").read_text().splitlines()[0].endswith(" org/my_model")


def test_what_is_no_json_is_written_as_such(tmp_path: Path) -> None:
    facts = {"loss": math.nan, "count": np.int64(3), "path": Path("a/b"), "both": (1, np.float32(0.5))}
    write_report(Report("mine", [], [], mining=facts), tmp_path, {}, {})
    assert json.loads((tmp_path / "report.json").read_text())["mining"] == {
        "loss": None,
        "count": 3,
        "path": "a/b",
        "both": [1, 0.5],
    }
    assert "embfit mine" in (tmp_path / "report.html").read_text()


def test_the_numbers_are_kept_when_the_page_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise RuntimeError("no page")

    monkeypatch.setattr("embfit.report.page.page", refuse)
    with pytest.raises(RuntimeError, match="no page"):
        write_report(report(), tmp_path, {}, {}, collection())
    assert json.loads((tmp_path / "report.json").read_text())["systems"].keys() == {"base", "bm25", "tuned"}
    assert sorted(path.name for path in (tmp_path / "rankings").iterdir()) == [
        "base.trec",
        "bm25.trec",
        "test.qrels",
        "tuned.trec",
    ]


def test_no_two_systems_share_a_file(tmp_path: Path) -> None:
    names = ["a/b", "a_b", "A_B", "a b-2"]
    systems = [system(name, {"q1": place}) for place, name in enumerate(names, 1)]
    write_report(report(evaluations=systems, comparisons=[]), tmp_path, {}, {})
    files = {"a_b": "a/b", "a_b-2": "a_b", "A_B-3": "A_B", "a_b-2-2": "a b-2"}
    assert {path.stem for path in (tmp_path / "rankings").iterdir()} == set(files)
    for file, name in files.items():
        place = read_run(tmp_path / "rankings" / f"{file}.trec").documents["q1"]
        assert [document for document, _ in place].index("d1") == names.index(name)
