from collections.abc import Callable

import pytest

from embfit.errors import ConfigError
from embfit.sweep import Grid, Optuna
from embfit.sweep.job import Result, SweepJob
from embfit.sweep.search import STUDY, storage
from embfit.sweep.space import Axis, Space, Span

RATES = Space((), (Axis("rate", span=Span(0.0, 1.0)),))


def test_a_grid_is_every_combination_the_last_key_fastest(tmp_path):
    space = Space((), (Axis("a", ("1", "2")), Axis("b", ("x", "y"))))
    [jobs] = Grid().proposals(space, tmp_path)
    assert jobs == [
        SweepJob(0, {"a": "1", "b": "x"}),
        SweepJob(1, {"a": "1", "b": "y"}),
        SweepJob(2, {"a": "2", "b": "x"}),
        SweepJob(3, {"a": "2", "b": "y"}),
    ]


def test_a_grid_of_nothing_is_one_job(tmp_path):
    assert list(Grid().proposals(Space(("a=1",), ()), tmp_path)) == [[SweepJob(0, {})]]


def test_a_grid_has_no_end_of_an_interval():
    with pytest.raises(ConfigError, match="rate is an interval"):
        Grid().known_jobs(RATES)


def ended(job: SweepJob, *values: float | None, state: str = "done") -> Result:
    return Result(job, "failed" if None in values else state, values=values)


def run(
    sweep: Optuna, folder, value: Callable[[SweepJob], float | None], space: Space = RATES, most: int = 99
) -> list[SweepJob]:
    """Play the sweep; stop as if killed, with a batch open, after `most` jobs."""
    proposals, done = sweep.proposals(space, folder), []
    try:
        jobs = next(proposals)
        while len(done) + len(jobs) <= most:
            done += jobs
            jobs = proposals.send({job.number: ended(job, value(job)) for job in jobs})
    except StopIteration:
        pass
    return done


def near(job: SweepJob) -> float:
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
    proposals = Optuna(trials=5, max_parallel=2).proposals(space, tmp_path)
    jobs = next(proposals)
    assert [job.number for job in jobs] == [0, 1]
    for job in jobs:
        assert list(job.point) == ["miner", "depth", "lr"]
        assert job.point["miner"] in ("bm25", "dense")
        assert job.point["depth"] in ("1", "3", "5")
        assert 1e-5 <= float(job.point["lr"]) <= 1e-4
    following = proposals.send({0: ended(jobs[0], 0.5), 1: ended(jobs[1], None)})
    assert [job.number for job in following] == [2, 3]
    last = proposals.send({job.number: ended(job, 0.5) for job in following})
    assert [job.number for job in last] == [4]


@pytest.mark.parametrize("max_parallel", [1, 3])
def test_a_point_proposed_again_is_told_what_is_known(tmp_path, max_parallel):
    optuna = pytest.importorskip("optuna")
    values = {"bm25": 0.25, "dense": 0.75}
    space = Space((), (Axis("miner", ("bm25", "dense")),))
    sweep = Optuna(trials=6, max_parallel=max_parallel, sampler="random")
    jobs = run(sweep, tmp_path, lambda job: values[job.point["miner"]], space)
    assert sorted(job.point["miner"] for job in jobs) == ["bm25", "dense"]
    trials = optuna.load_study(study_name="sweep", storage=storage(tmp_path / STUDY)).trials
    assert [trial.value for trial in trials] == [values[trial.params["miner"]] for trial in trials]
    assert len(trials) == 6


def test_a_point_that_failed_is_tried_again_when_it_is_proposed_again(tmp_path):
    pytest.importorskip("optuna")
    space = Space((), (Axis("miner", ("bm25",)),))
    jobs = run(Optuna(trials=3), tmp_path, lambda job: 0.5 if job.number else None, space)
    assert [job.number for job in jobs] == [0, 1]


def test_the_seed_is_nothing_to_search():
    space = Space((), (Axis("lr", ("1", "2")), Axis("seed", ("0", "1"))))
    with pytest.raises(ConfigError, match=r"would search for the luckiest seed; leave seed out, .* seed=0,1,2"):
        Optuna().known_jobs(space)


def test_nothing_to_vary():
    with pytest.raises(ConfigError, match="sweep=optuna has nothing to vary"):
        Optuna().known_jobs(Space((), ()))


def test_what_is_foreseen_has_every_value_and_both_ends():
    axes = (Axis("miner", ("bm25", "dense", "none")), Axis("lr", span=Span(0.25, 0.5)), Axis("epochs", ("1",)))
    assert Optuna().known_jobs(Space((), axes)) == [
        SweepJob(0, {"miner": "bm25", "lr": "0.25", "epochs": "1"}),
        SweepJob(1, {"miner": "dense", "lr": "0.5", "epochs": "1"}),
        SweepJob(2, {"miner": "none", "lr": "0.5", "epochs": "1"}),
    ]


def test_the_first_trial_is_the_default(tmp_path):
    pytest.importorskip("optuna")
    axes = (Axis("miner", ("bm25", "dense")), Axis("lr", span=Span(1e-5, 1e-4, log=True)))
    for name, default, first in (
        ("whole", {"miner": "dense", "lr": "5e-05"}, True),
        ("part", {"miner": "dense"}, False),  # the interval does not hold the default rate
    ):
        (tmp_path / name).mkdir()
        [job, *_] = next(Optuna(trials=2).proposals(Space((), axes, default), tmp_path / name))
        assert (job.point == {"miner": "dense", "lr": "5e-05"}) is first


def test_several_objectives_search_the_front(tmp_path):
    pytest.importorskip("optuna")
    sweep = Optuna(objective=["dev.x", "minutes"], direction=["maximize", "minimize"], trials=12, startup=4)
    assert sweep.pruning(tmp_path) is None
    proposals = sweep.proposals(RATES, tmp_path)
    [job] = next(proposals)
    for number in range(1, 12):
        rate = float(job.point["rate"])
        [job] = proposals.send({job.number: ended(job, rate, rate**2)})
        assert job.number == number
    with pytest.raises(StopIteration):
        proposals.send({job.number: ended(job, 0.5, 0.25)})
    with pytest.raises(ConfigError, match=r"to maximize dev.x, minimize minutes, not to maximize dev.ndcg"):
        next(Optuna().proposals(RATES, tmp_path))


def test_what_is_pruned_is_over(tmp_path):
    optuna = pytest.importorskip("optuna")
    proposals = Optuna(trials=2).proposals(RATES, tmp_path)
    [job] = next(proposals)
    [other] = proposals.send({job.number: Result(job, "pruned")})
    with pytest.raises(StopIteration):
        proposals.send({other.number: ended(other, 0.5)})
    study = optuna.load_study(study_name="sweep", storage=storage(tmp_path / STUDY))
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE"]


def test_only_dev_metrics_are_pruned_on(tmp_path):
    assert Optuna().pruning(tmp_path) == {
        "_target_": "embfit.sweep.pruning.Pruning",
        "study": str(tmp_path / STUDY),
        "metric": "ndcg@10",
        "after": 1,
        "startup": 5,
    }
    assert Optuna(pruner="none").pruning(tmp_path) is None
    assert Optuna(objective="timings.train").pruning(tmp_path) is None
    with pytest.raises(ConfigError, match=r"sweep.pruner=median needs a dev metric"):
        Optuna(objective="timings.train", pruner="median")
