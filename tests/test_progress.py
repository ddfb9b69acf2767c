import logging

from rich.console import Console

from embfit import progress as progress_module
from embfit.progress import _bar, track


def lines_of(monkeypatch, caplog, seconds: float, total: int) -> list[str]:
    """Return what is logged when each item takes so many seconds."""
    clock = iter(seconds * step for step in range(total + 1))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress_module.sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO, logger="embfit.progress"):
        assert list(track(range(total), "training", total, "steps")) == list(range(total))
    return caplog.messages


def test_plain_lines_come_every_fifteen_seconds_with_rate_and_time_left(monkeypatch, caplog):
    assert lines_of(monkeypatch, caplog, seconds=8, total=4) == [
        "training: 2 of 4 steps, 0.12/s, 16 s left",
        "training: 4 of 4 steps, 0.12/s, 0 s left",
    ]


def test_a_high_rate_has_no_decimals(monkeypatch, caplog):
    messages = lines_of(monkeypatch, caplog, seconds=0.05, total=400)
    assert messages == ["training: 300 of 400 steps, 20/s, 5 s left"]


def test_what_was_done_before_is_no_part_of_the_rate(monkeypatch, caplog):
    clock = iter([0, 20, 40])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress_module.sys.stderr, "isatty", lambda: False, raising=False)
    with (
        caplog.at_level(logging.INFO, logger="embfit.progress"),
        progress_module.progress("training", 100, "steps", completed=90) as advance,
    ):
        advance()
        advance()
    assert caplog.messages == [
        "training: 91 of 100 steps, 0.05/s, 180 s left",
        "training: 92 of 100 steps, 0.05/s, 160 s left",
    ]


def test_the_first_step_may_be_nothing(monkeypatch, caplog):
    clock = iter([0, 20, 40])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress_module.sys.stderr, "isatty", lambda: False, raising=False)
    with (
        caplog.at_level(logging.INFO, logger="embfit.progress"),
        progress_module.progress("training", 100, "steps", completed=90) as advance,
    ):
        advance(0)
        advance(2)
    assert caplog.messages == [
        "training: 90 of 100 steps, 0/s, no estimate of the time left",
        "training: 92 of 100 steps, 0.05/s, 160 s left",
    ]


def test_a_label_with_brackets_is_shown_as_it_is():
    bar = _bar("MB")
    bar.add_task("reading a[/b].jsonl", total=3, rate="[x] 2/s")
    console = Console(width=120)
    with console.capture() as captured:
        console.print(bar.get_renderable())
    assert captured.get().startswith("reading a[/b].jsonl ")
    assert " MB [x] 2/s " in captured.get()
