"""What the page's sections show of a run."""

from embfit.compose.origins import Layer, Origins
from embfit.report.page import SECTIONS
from embfit.report.sections import cost, reproduction, training
from embfit.report.subject import Subject
from tests.report.reports import collection, report

CURVE = [{"step": float(step), "loss": 1 / step, "accuracy": step / 8, "lr": 1e-4} for step in range(1, 5)]


def subject(**changes: object) -> Subject:
    return Subject(report(**changes), {}, Origins(), collection())


def test_a_run_without_systems_has_no_sections_about_them() -> None:
    bare = Subject(report(evaluations=[], comparisons=[], training={}, timings={}), {}, Origins())
    assert [name for name, section in SECTIONS.items() if section(bare)] == ["mining", "data", "reproduction"]


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


def test_versions_are_named() -> None:
    versions = {
        "embfit": "0.1.0",
        "python": "3.11.2",
        "platform": "Linux",
        "git": {"commit": "0123456789abcdef", "clean": False},
        "packages": {"torch": "2.9", "left-pad": "1"},
    }
    shown = reproduction.section(Subject(report(), {}, Origins(), versions=versions))
    assert shown["versions"] == [
        ("commit", "0123456789ab, with changes"),
        ("embfit", "0.1.0"),
        ("Python", "3.11.2"),
        ("torch", "2.9"),
        ("machine", "Linux"),
    ]
