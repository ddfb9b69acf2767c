"""A training that others have left behind stops, is told as pruned, and can be resumed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from embfit.errors import Pruned

optuna = pytest.importorskip("optuna")

from embfit.sweep.pruning import Pruning  # noqa: E402  # not there without Optuna
from embfit.sweep.search import NAME, storage  # noqa: E402
from embfit.training.fit.validation import Validation  # noqa: E402


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Five trials that reached 0.5, 0.6, 0.7, 0.8 and 0.9 at each of three validations, and one that is open."""
    file = tmp_path / "study.db"
    made = optuna.create_study(storage=storage(file), study_name=NAME, direction="maximize")
    space = {"lr": optuna.distributions.FloatDistribution(0, 1)}
    for value in (0.5, 0.6, 0.7, 0.8, 0.9):
        reports = {1: value, 2: value, 3: value}
        made.add_trial(
            optuna.create_trial(params={"lr": 0.5}, distributions=space, value=value, intermediate_values=reports)
        )
    made.ask(fixed_distributions=space)
    return file


class Training:
    """Stands for Lightning's Trainer and the validation in it."""

    def __init__(self, pruning: Pruning) -> None:
        self.validation = Validation(dict, [], None, 0.0, Path())
        self.validation.history.append({"step": 0, "ndcg@10": 0.1})
        self.trainer = SimpleNamespace(
            callbacks=[self.validation], should_stop=False, global_step=0, max_steps=30, is_global_zero=True
        )
        self.pruning = pruning
        pruning.on_fit_start(self.trainer, None)

    def measure(self, value: float) -> bool:
        self.trainer.global_step += 10
        self.validation.history.append({"step": self.trainer.global_step, "ndcg@10": value})
        self.step()
        return self.trainer.should_stop

    def step(self) -> None:
        self.pruning.on_train_batch_end(self.trainer, None, None, None, 0)

    def end(self) -> None:
        self.pruning.on_fit_end(self.trainer, None)


def reported(study: Path, number: int) -> dict[int, float]:
    return optuna.load_study(storage=storage(study), study_name=NAME).trials[number].intermediate_values


def test_the_median_decides_after_a_first_validation(study):
    training = Training(Pruning(str(study), 5, "ndcg@10", after=1))
    assert not training.measure(0.3)  # the first validation is for free
    training.step()  # a step without a validation
    assert training.measure(0.65)  # below the median of 0.7
    assert reported(study, 5) == {1: 0.3, 2: 0.65}
    with pytest.raises(Pruned, match=r"^dev ndcg@10 0.6500 at validation 2 is worse than the jobs' median$"):
        training.end()


def test_what_keeps_up_goes_on(study):
    training = Training(Pruning(str(study), 5, "ndcg@10", after=0))
    assert not training.measure(0.75)
    assert not training.measure(0.75)
    assert not training.measure(0.1)  # the last step: nothing is won by pruning now
    training.end()


def test_few_jobs_are_no_measure(study):
    training = Training(Pruning(str(study), 5, "ndcg@10", after=0, startup=6))
    assert not training.measure(0.1)


def test_a_trial_that_is_over_is_gone_on_with_in_peace(study):
    loaded = optuna.load_study(storage=storage(study), study_name=NAME)
    loaded.tell(5, state=optuna.trial.TrialState.PRUNED)
    training = Training(Pruning(str(study), 5, "ndcg@10", after=0))
    assert not training.measure(0.1)
    assert reported(study, 5) == {}


def test_a_resumed_job_reports_what_is_new(study):
    Training(Pruning(str(study), 5, "ndcg@10", after=9)).measure(0.3)
    again = Training(Pruning(str(study), 5, "ndcg@10", after=9))
    again.measure(0.4)  # the validation that was reported already
    again.measure(0.5)
    assert reported(study, 5) == {1: 0.3, 2: 0.5}
