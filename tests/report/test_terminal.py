from dataclasses import replace

import pytest
from rich.console import Console

from embfit.evaluator.comparison import compare
from embfit.records import Report
from embfit.report import print_table
from tests.report.reports import BASE, BM25, TUNED, report, system


def printed(found: Report, width: int = 100) -> list[str]:
    console = Console(width=width, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        print_table(found, console)
    return [" ".join(line.split()) for line in captured.get().splitlines() if line.strip()]


def test_systems_differences_subsets_and_verdict_are_printed() -> None:
    found = report()
    lines = printed(found)
    assert lines[0] == "test: 4 queries"
    assert lines[1] == "nDCG@10 MRR@10"
    assert "base 0.6577 0.5417" in lines
    assert "bm25 0.5000 0.3333" in lines
    assert "tuned 0.8750 0.8333" in lines
    assert "tuned − base +0.2173 +0.2917" in lines
    assert "tuned − bm25 +0.3750 +0.5000" in lines
    assert sum(line.startswith("95 % interval") for line in lines) == 2
    assert any(line.startswith("unseen (2 queries): nDCG@10 +0.1845 (") for line in lines)
    assert any(line.startswith("No significant difference between base and tuned") for line in lines)


def test_it_fits_eighty_columns_with_the_usual_metrics() -> None:
    found = report()
    tables = [line for line in printed(found, width=80) if "…" in line]
    assert all(line.startswith("95 % interval") for line in tables)


def test_dimensions_are_a_table_of_their_own() -> None:
    cut = {8: replace(system("base@8", BASE)), 16: system("base@16", {"q1": 1, "q2": 1, "q3": 1, "q4": 1})}
    lines = printed(report(evaluations=[replace(system("base", BASE), dims=cut)], comparisons=[]))
    assert lines[lines.index("nDCG@10 by dimensions") + 1] == "base"
    assert {"8 0.6577", "16 1.0000"} <= set(lines)


def test_the_corrected_p_stands_beside_parts_of_the_queries() -> None:
    base, tuned, bm25 = system("base", BASE), system("tuned", TUNED), system("bm25", BM25)
    compared = [replace(one, p_holm=0.4) for other in (tuned, bm25) for one in compare(base, other, 10, 0)]
    lines = printed(report(evaluations=[base, tuned, bm25], comparisons=compared), width=200)
    (line,) = (line for line in lines if line.startswith("unseen (2 queries): "))
    assert line.endswith("p = 0.4 corrected for 2 systems)")


def test_brackets_in_names_are_not_markup() -> None:
    base, tuned = system("base [/INST]", BASE), system("tuned [bold]", TUNED)
    found = report(evaluations=[base, tuned], comparisons=compare(base, tuned, 10, 0))
    lines = printed(found, width=200)
    assert "base [/INST] 0.6577 0.5417" in lines
    assert "tuned [bold] − base [/INST] +0.2173 +0.2917" in lines
    assert any("between base [/INST] and tuned [bold]:" in line for line in lines)
    cut = replace(base, dims={8: base})
    lines = printed(report(evaluations=[cut], comparisons=[]), width=200)
    assert "base [/INST]" in lines


def test_a_report_without_systems_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(Report("mine", [], []))
    assert capsys.readouterr().out == ""
