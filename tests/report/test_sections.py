"""What the page's sections show of a run."""

import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from embfit.compose.value_origins import Layer, Origins
from embfit.evaluator.comparison import compare
from embfit.evaluator.production import production_gap
from embfit.report import sections as room
from embfit.report.findings import efficient, funnel_overrides
from embfit.report.page import page
from embfit.report.sections import cost, production, reproduction, sections, size, subsets, training, usage
from embfit.report.subject import Subject
from tests.report.reports import BASE, TUNED, collection, report, system

CURVE = [{"step": float(step), "loss": 1 / step, "accuracy": step / 8, "lr": 1e-4} for step in range(1, 5)]


def subject(**changes: object) -> Subject:
    return Subject(report(**changes), {}, Origins(), collection())


def test_a_run_without_systems_has_no_sections_about_them() -> None:
    bare = Subject(report(evaluations=[], comparisons=[], training={}, timings={}), {}, Origins())
    assert [name for name, section in sections().items() if section(bare)] == ["mining", "data", "reproduction"]


def test_the_order_of_the_page() -> None:
    assert list(sections()) == [
        *("assessment", "result", "subsets", "production", "usage", "curves", "scores", "size", "queries"),
        *("training", "generation", "mining", "data", "cost", "glossary", "reproduction"),
    ]
    assert sorted(file.stem for file in Path(room.__path__[0]).glob("*.html")) == sorted(sections())
    places = [import_module(f"embfit.report.sections.{name}").PLACE for name in sections()]
    assert len(set(places)) == len(places)


def test_a_file_is_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weather.py").write_text("PLACE = 15\n\n\ndef section(subject):\n    return {'title': 'Rain'}\n")
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(tmp_path)])
    found = sections.__wrapped__()
    assert list(found)[:3] == ["assessment", "weather", "result"]
    assert found["weather"](subject()) == {"title": "Rain"}


def test_a_validation_of_one_metric_is_drawn_though_the_report_has_others() -> None:
    evaluations = [replace(system("base", BASE), metrics={"mrr@10": 0.5})]
    history = [{"step": 0, "ndcg@10": 0.5}, {"step": 4, "ndcg@10": 0.6}]  # as a query adapter's training has it
    shown = training.section(subject(evaluations=evaluations, training={"history": history}))
    assert shown is not None
    assert [plot.caption.split(";")[0] for plot in shown["plots"]] == ["nDCG@10 on the dev split"]


def test_training_is_drawn_and_its_cost_is_shown_with_the_costs() -> None:
    facts = {
        "epochs": 2.0,
        "history": [{"step": 0, "ndcg@10": 0.5}, {"step": 4, "ndcg@10": 0.6}],
        "curve": CURVE,
        "seconds": 70.0,
        "pairs_per_second": 12.34,
        "peak_memory_gb": 1.5,
    }
    shown = training.section(subject(training=facts))
    assert shown is not None
    assert [plot.caption.split(";")[0] for plot in shown["plots"]] == [
        "nDCG@10 on the dev split",
        "Loss",
        "Accuracy in the batch: positives above all their negatives",
        "Learning rate",
    ]
    assert shown["rows"] == [("epochs", "2")]
    costs = cost.section(subject(training=facts))
    assert costs is not None
    assert costs["rows"] == [
        ("training alone", "1 min 10 s"),
        ("training pairs per second", "12.34"),
        ("peak memory", "1.50 GB"),
        ("base, embedding and search", "1.5 s"),
        ("bm25, embedding and search", "1.5 s"),
        ("tuned, embedding and search", "1.5 s"),
    ]
    assert [(stage, share) for stage, _, share in costs["stages"]] == [("data", 50 / 61), ("training", 100.0)]


def test_each_value_says_what_it_took_the_place_of() -> None:
    origins = Origins()
    origins.put("training.lr", "conf/training/in-batch.yaml:8", 5e-5)
    origins.put("training.lr", "command line", 1e-4)
    origins.put("seed", "conf/config.yaml:20", 0)
    origins.put("evaluator.seed", "conf/evaluator/retrieval.yaml:14", "${seed}")
    origins.choices = {"model": (Layer("command line", "bge-base"), Layer("conf/config.yaml:6", "minilm"))}
    config = {"training": {"lr": 1e-4}, "seed": 0, "evaluator": {"seed": 0}}
    shown = reproduction.section(Subject(report(), config, origins))
    lr, seed, drawn = shown["values"]
    assert (lr.key, lr.value, lr.source, lr.is_chosen) == ("training.lr", "0.0001", "command line", True)
    assert lr.overrode == ["5e-05 in conf/training/in-batch.yaml:8"]
    assert (seed.source, seed.overrode, seed.is_chosen) == ("conf/config.yaml:20", [], False)
    assert drawn.source == "conf/evaluator/retrieval.yaml:14 as ${seed}"
    assert shown["changed"] == [lr]
    (choice,) = shown["choices"]
    assert (choice.value, choice.overrode) == ('"bge-base"', ['"minilm" in conf/config.yaml:6'])


def test_what_a_choice_inherits_and_what_stays_equal_is_no_change() -> None:
    origins = Origins()
    origins.put("model.path", "conf/model/custom.yaml:3", None)
    origins.put("model.path", "conf/model/minilm.yaml:11", "minilm")
    origins.put("seed", "conf/config.yaml:20", 0)
    origins.put("seed", "command line", 0)
    origins.put("training.epochs", "conf/training/in-batch.yaml:4", 1)
    origins.put("training.epochs", "conf/experiment/quickstart.yaml:14", 3)
    origins.put("loss.extra", "command line", 5)
    config = {"model": {"path": "minilm"}, "seed": 0, "training": {"epochs": 3}, "loss": {"extra": 5}}
    shown = reproduction.section(Subject(report(), config, origins))
    assert [value.key for value in shown["changed"]] == ["training.epochs", "loss.extra"]


def test_words_are_explained_where_they_are_used() -> None:
    drawn = page(report(), {"model": {"path": "org/small-model"}}, Origins(), collection())
    assert "base model <b>org/small-model</b>" in drawn
    assert '<abbr title="nDCG@10: how high the relevant documents are among the first 10:' in drawn
    assert '<abbr title="unseen: all other queries.' in drawn
    words = drawn.split('id="glossary"')[1].split("</section>")[0]
    assert re.findall("<dt>(.*?)</dt>", words) == ["nDCG@10", "MRR@10", "95 % interval", "p", "seen", "unseen"]


def test_the_model_can_be_used_from_the_page(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modules.json").write_text("[]")
    drawn = page(report(), {}, Origins(), collection(), model=tmp_path / "model")
    assert f'model = embfit.load("{tmp_path / "model"}")' in drawn
    assert ">Try this model</h2>" in drawn  # four queries decide nothing
    assert usage.section(subject()) is None
    assert "SentenceTransformer" in drawn
    (tmp_path / "model" / "config_sentence_transformers.json").write_text('{"model_type": "ColBERT"}')
    assert "MultiVectorEncoder" in page(report(), {}, Origins(), collection(), model=tmp_path / "model")
    unchanged = Subject(report(training={"kept_step": 0}), {}, Origins(), collection(), model=tmp_path / "model")
    assert usage.section(unchanged) is None


def test_versions_are_named() -> None:
    versions = {
        "embfit": "0.1.0",
        "python": "3.11.2",
        "platform": "Linux",
        "embfit_git": {"commit": "fedcba9876543210", "clean": True},
        "directory_git": {"commit": "0123456789abcdef", "clean": False},
        "packages": {"torch": "2.9", "left-pad": "1"},
    }
    shown = reproduction.section(Subject(report(), {}, Origins(), versions=versions))
    assert shown["versions"] == [
        ("embfit", "0.1.0, commit fedcba987654"),
        ("working directory", "commit 0123456789ab with changes"),
        ("Python", "3.11.2"),
        ("torch", "2.9"),
        ("machine", "Linux"),
    ]


def test_a_resumed_run_is_reproduced_by_what_was_typed_first() -> None:
    versions = {
        "overrides": ["seed=3", "query=what is it"],
        "embfit_git": None,
        "embfit": "",
        "python": "",
        "packages": {},
    }
    resumed = Subject(report(), {}, Origins(), None, "python -m embfit resume=DIR", versions | {"platform": ""})
    assert reproduction.section(resumed)["command"] == "python -m embfit seed=3 'query=what is it'"
    costs = cost.section(resumed)
    assert costs is not None
    assert costs["resumed"] is True


def setting(dims: int, shortlist: int | None, value: float, size: int, milliseconds: float = 1.0) -> dict[str, Any]:
    return {
        "dims": dims, "format": "float32", "shortlist": shortlist, "value": value, "share": value / 0.8,
        "bytes_per_document": size, "milliseconds": milliseconds,
    }  # fmt: skip


WHOLE, HALF, NARROWED, SLOW = (
    setting(64, None, 0.80, 256),
    setting(32, None, 0.78, 128),
    setting(32, 50, 0.795, 128, 0.9),
    setting(16, 50, 0.70, 128, 2.0),
)


def test_sizes_that_something_smaller_equals_are_left_out() -> None:
    assert efficient([WHOLE, HALF, NARROWED, SLOW]) == [WHOLE, NARROWED]
    assert efficient([SLOW, setting(8, None, 0.7, 32)]) == [setting(8, None, 0.7, 32)]


def test_the_funnel_is_drawn_and_its_cheapest_setting_marked() -> None:
    funnel = {"metric": "ndcg@10", "settings": [WHOLE, HALF, NARROWED], "kept": 0.99, "cheapest": NARROWED}
    evaluations = [replace(found, funnel=funnel) for found in report().evaluations[:1]]
    shown = size.section(subject(evaluations=evaluations, comparisons=[]))
    assert shown is not None
    (plot,) = shown["plots"]
    assert (
        plot.caption
        == "base: nDCG@10 by bytes of a document in memory; 128 bytes keep 99% of the whole vectors' nDCG@10"
    )
    drawn = page(report(evaluations=evaluations, comparisons=[]), {}, Origins(), collection())
    rows = drawn.split('id="size"')[1].split("</table>")[0]
    assert rows.count('<tr class="better">') == 1
    assert "<b>0.7950</b></td><td>99.4 %" in rows
    assert "embfit index index=funnel index.dims=32 index.format=float32 index.shortlist=50 bundle" in drawn
    assert funnel_overrides(WHOLE) is None  # whole vectors need no shortlist


def test_near_copies_are_explained_where_there_are_any() -> None:
    shown = subsets.section(subject())
    assert shown is not None
    assert shown["near_copies"] is False
    evaluations = [
        replace(found, subsets={**found.subsets, "near-copy": ["q1"]}) if found.system == "base" else found
        for found in report().evaluations
    ]
    shown = subsets.section(subject(evaluations=evaluations))
    assert shown is not None
    assert shown["near_copies"] is True


def test_what_p_is_corrected_for_is_said() -> None:
    plain = page(report(), {}, Origins(), collection())
    assert "not corrected for the number of metrics or systems." in plain
    corrected = [replace(found, p_holm=0.5) for found in report().comparisons]
    drawn = page(report(comparisons=corrected), {}, Origins(), collection())
    assert "below it, corrected for the number of systems by Holm's method." in drawn
    assert drawn.count("<td>0.5</td>") >= len(corrected) / 3  # a row for each pair of systems, not for subsets


def test_production_queries_stand_beside_the_reported_ones() -> None:
    synthetic = [system("base", BASE), system("tuned", TUNED)]
    users = [system("base", TUNED), system("tuned", TUNED)]  # nothing of the gain arrives
    gap = production_gap(synthetic, users, collection(), samples=500, seed=0)
    shown = production.section(subject(sections={"production": gap}))
    assert shown is not None
    ndcg_of_base = (1 + 1 / 2 + 1 / 2 + 0.6309298) / 4  # ranks 1, 3, 3, 2
    ndcg_of_tuned = (1 + 1 + 1 + 1 / 2) / 4
    assert [(row["system"], row["synthetic"], row["production"]) for row, _ in shown["rows"]] == [
        ("base", pytest.approx(ndcg_of_base), pytest.approx(ndcg_of_tuned)),
        ("tuned", pytest.approx(ndcg_of_tuned), pytest.approx(ndcg_of_tuned)),
    ]
    assert [(one.a, one.b, one.difference) for one in shown["comparisons"]] == [("base", "tuned", 0.0)]
    html = page(report(sections={"production": gap}), {}, {}, collection())
    assert "Do users&#39; queries agree?" in html
    assert "tuned − base: nDCG@10 +0.217 on test, 0.000 on test" in html


def test_the_p_that_decides_stands_in_every_table() -> None:
    systems = [system(name, places) for name, places in (("base", BASE), ("tuned", TUNED), ("other", TUNED))]
    compared = [
        replace(found, p=0.0123, p_holm=0.0456)
        for found in (*compare(systems[0], systems[1], 100, 0), *compare(systems[0], systems[2], 100, 0))
    ]
    gap = production_gap(systems, systems, collection(), samples=100, seed=0)
    gap["comparisons"] = [vars(found) for found in compared]
    shown = page(report(evaluations=systems, comparisons=compared, sections={"production": gap}), {}, Origins())
    for title in ("Did it learn the domain", "Do users&#39; queries agree"):
        table = shown.split(title)[-1].split("</section>")[0]
        assert "p, corrected</th>" in table
        assert "<td>0.046</td>" in table
        assert "<td>0.012</td>" not in table
