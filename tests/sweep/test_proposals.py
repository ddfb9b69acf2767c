from collections.abc import Callable

import pytest

from embfit.errors import ConfigError
from embfit.sweep import Grid, Optuna
from embfit.sweep.job import Job
from embfit.sweep.search import STUDY
from embfit.sweep.space import Axis, Space, Span

RATES = Space((), (Axis("rate", span=Span(0.0, 1.0)),))


def test_a_grid_is_every_combination_the_last_key_fastest(tmp_path):
    space = Space((), (Axis("a", ("1", "2")), Axis("b", ("x", "y"))))
    [jobs] = Grid().proposals(space, tmp_path)
    assert jobs == [
        Job(0, {"a": "1", "b": "x"}),
        Job(1, {"a": "1", "b": "y"}),
        Job(2, {"a": "2", "b": "x"}),
        Job(3, {"a": "2", "b": "y"}),
    ]


def test_a_grid_of_nothing_is_one_job(tmp_path):
    assert list(Grid().proposals(Space(("a=1",), ()), tmp_path)) == [[Job(0, {})]]


def test_a_grid_has_no_end_of_an_interval(tmp_path):
    with pytest.raises(ConfigError, match="rate is given an interval"):
        next(Grid().proposals(RATES, tmp_path))


def run(sweep: Optuna, folder, value: Callable[[Job], float | None], space: Space = RATES, most: int = 99) -> list[Job]:
    """Play the sweep; stop as if killed, with a batch open, after `most` jobs."""
    proposals, done = sweep.proposals(space, folder), []
    try:
        jobs = next(proposals)
        while len(done) + len(jobs) <= most:
            done += jobs
            jobs = proposals.send({job.number: value(job) for job in jobs})
    except StopIteration:
        pass
    return done


def near(job: Job) -> float:
    return -((float(job.point["rate"]) - 0.3) ** 2)


def test_tpe_finds_what_chance_finds_later(tmp_path):
    pytest.importorskip("optuna")
    best = {}
    for sampler in ("tpe", "random"):
        (tmp_path / sampler).mkdir()
        jobs = run(Optuna(trials=30, sampler=sampler), tmp_path / sampler, near)
        assert [job.number for job in jobs] == list(range(30))
        late = [abs(float(job.point["rate"]) - 0.3) for job in jobs[15:]]
        best[sampler] = sum(late) / len(late)
    assert best["tpe"] < best["random"] / 2


def test_a_resumed_search_is_the_uninterrupted_one(tmp_path):
    pytest.importorskip("optuna")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = run(Optuna(trials=6, startup=3), tmp_path / "a", near)
    first = run(Optuna(trials=6, startup=3), tmp_path / "b", near, most=4)
    rest = run(Optuna(trials=6, startup=3), tmp_path / "b", near)
    assert [job.number for job in first] == list(range(4))
    assert rest[0].number == 4  # asked for before it was killed
    assert first + rest == whole
    assert run(Optuna(trials=6, startup=3), tmp_path / "b", near) == []
    assert (tmp_path / "b" / STUDY).is_file()
    assert len(run(Optuna(trials=8, startup=3), tmp_path / "b", near)) == 2


def test_what_failed_is_run_again_when_resumed(tmp_path):
    pytest.importorskip("optuna")
    jobs = run(Optuna(trials=4), tmp_path, lambda job: None if job.number == 1 else near(job))
    assert [job.number for job in jobs] == [0, 1, 2, 3]
    assert run(Optuna(trials=4), tmp_path, near) == [jobs[1]]


def test_axes_of_every_kind_and_several_at_once(tmp_path):
    pytest.importorskip("optuna")
    space = Space(
        (),
        (
            Axis("miner", ("bm25", "dense")),
            Axis("depth", ("1", "3", "5"), Span(1, 5, 2)),
            Axis("lr", span=Span(1e-5, 1e-4, log=True)),
        ),
    )
    proposals = Optuna(trials=5, at_once=2).proposals(space, tmp_path)
    jobs = next(proposals)
    assert [job.number for job in jobs] == [0, 1]
    for job in jobs:
        assert list(job.point) == ["miner", "depth", "lr"]
        assert job.point["miner"] in ("bm25", "dense")
        assert job.point["depth"] in ("1", "3", "5")
        assert 1e-5 <= float(job.point["lr"]) <= 1e-4
    assert [job.number for job in proposals.send({0: 0.5, 1: None})] == [2, 3]
    assert [job.number for job in proposals.send({2: 0.5, 3: 0.1})] == [4]


def test_nothing_to_vary(tmp_path):
    with pytest.raises(ConfigError, match="sweep=optuna has nothing to vary"):
        next(Optuna().proposals(Space((), ()), tmp_path))
