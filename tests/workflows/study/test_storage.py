"""One worker's view of a shared study, on SQLite, without training."""

import contextlib
import io
import warnings
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from wafer_lab.errors import DivergedError, UserError
from wafer_lab.workflows.study.console import Console
from wafer_lab.workflows.study.report import importances
from wafer_lab.workflows.study.settings import Study
from wafer_lab.workflows.study.storage import Shared, finished
from wafer_lab.workflows.study.trial import Watch
from wafer_lab.workflows.study.worker import Worker, fails_alone

SPACE = {"x": {"type": "float", "low": 0, "high": 1}}


@pytest.fixture(autouse=True)
def _quiet_optuna():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def opened(tmp_path):
    """opened(n_trials=..., ...) -> a worker's view of the study in this test's file."""

    def make(identity=None, **changes):
        plain = {"name": "toy", "space": SPACE, "objectives": [{"metric": "y", "direction": "max"}], "pruner": "none"}
        settings = Study(**(plain | {"storage": f"sqlite:///{tmp_path}/studies.db", "n_trials": 4} | changes))
        return Shared(settings, identity or {"command": []}, 9)

    return make


def work(shared, objective=None):
    def usual(trial):
        return [trial.suggest_float("x", 0, 1)]

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        Worker(shared, objective or usual, Console(shared.settings, shared.study)).work(shared.settings.timeout)
    return said.getvalue()


def params(shared):
    return [trial.params["x"] for trial in finished(shared.study)]


def test_n_trials_is_a_total_on_resume(opened):
    work(opened(n_trials=1))
    shared = opened(n_trials=3)
    work(shared)
    work(shared)
    assert [trial.number for trial in finished(shared.study)] == [0, 1, 2]


def test_draws_follow_the_seed_and_the_place(opened):
    first, again, other = (opened(name=name, seed=seed, n_trials=2) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    for shared in (first, again, other):
        work(shared)
    assert params(first) == params(again) != params(other)
    assert len(set(params(first))) == 2


def test_two_workers_never_begin_more_than_there_shall_be(opened):
    shared, other = opened(n_trials=2), opened(n_trials=2)
    claimed = [shared.claim(), other.claim()]
    assert {trial.number for trial in claimed} == {0, 1}
    assert shared.claim() is None
    assert other.claim() is None
    shared.study.tell(claimed[0], [0.5])
    assert shared.claim() is None


@pytest.mark.parametrize("look", range(4))
def test_a_trial_that_ends_while_another_worker_counts_is_counted(opened, monkeypatch, look):
    shared, other = opened(n_trials=1), opened(n_trials=1)
    trial, looks = other.claim(), []
    get_trials = shared.study.get_trials

    def looked(*args, **kwargs):
        trials = get_trials(*args, **kwargs)
        if len(looks) == look:
            other.study.tell(trial, [0.5])
        looks.append(trials)
        return trials

    monkeypatch.setattr(shared.study, "get_trials", looked)
    assert shared.claim() is None


def test_a_trial_that_is_queued_again_while_the_others_are_counted_is_run(opened, monkeypatch):
    shared, other = opened(n_trials=1, heartbeat=1), opened(n_trials=1)
    trial, running = other.claim(), shared.running

    def counted():
        other.hand_back(trial)
        return running()

    monkeypatch.setattr(shared, "running", counted)
    work(shared)
    assert len(finished(shared.study)) == 1


def test_a_trial_of_a_dead_worker_is_run_again_with_its_values(opened):
    told = []
    shared = opened(n_trials=1)
    shared.given_up = told.append
    dead = shared.claim()
    x = dead.suggest_float("x", 0, 1)
    silent = shared.study.get_trials()[0]
    shared._queue_again(shared.study, silent)
    shared.study.tell(dead, state=TrialState.FAIL)
    work(shared)
    assert told == [0]
    assert params(shared) == [x]
    assert finished(shared.study)[0].user_attrs["repeats"] == 0


def test_a_worker_that_died_while_it_took_a_trial_blocks_nobody(opened):
    shared = opened(n_trials=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shared.study.ask()  # and no sign of life follows
    work(shared)
    assert [trial.number for trial in finished(shared.study)] == [1]


def test_other_settings_under_the_same_name_are_refused(opened):
    opened({"command": ["model=a"], "seeds": 1})
    with pytest.raises(UserError, match=r"command was \['model=a'\], is \['model=b'\]; repeat its command"):
        opened({"command": ["model=b"], "seeds": 1})


def test_a_storage_that_cannot_be_used_is_one_message(opened, tmp_path):
    (tmp_path / "studies.db").write_text("no database")
    with pytest.raises(UserError, match="cannot keep the study in sqlite"):
        opened()


def test_a_pruned_and_a_diverged_trial_count_and_the_study_goes_on(opened):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if trial.number == 1:
            raise DivergedError("the loss is nan")
        if trial.number == 2:
            trial.report(x, 0)
            raise optuna.TrialPruned
        return [x]

    shared = opened()
    said = work(shared, objective)
    states = [trial.state for trial in finished(shared.study)]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE]
    assert "trial   1  fail      the loss is nan" in said


@pytest.mark.parametrize("error", [UserError("no data at x"), TypeError("a bug"), KeyboardInterrupt()])
def test_what_every_trial_would_meet_stops_the_study_and_loses_nothing(opened, error):
    def objective(trial):
        trial.suggest_float("x", 0, 1)
        raise error

    shared = opened(n_trials=2)
    with pytest.raises(type(error)):
        work(shared, objective)
    assert finished(shared.study) == []
    waiting = shared.study.get_trials(states=(TrialState.WAITING,))
    work(shared)
    assert params(shared)[0] == waiting[0].params["x"]
    assert len(finished(shared.study)) == 2


def test_a_mistake_of_one_trial_fails_it_and_the_same_again_stops(opened):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if trial.number in (1, 3, 4):
            raise UserError("these do not go together")
        return [x]

    shared = opened(n_trials=6)
    with pytest.raises(UserError):
        work(shared, objective)
    assert [trial.state.name for trial in finished(shared.study)] == ["COMPLETE", "FAIL", "COMPLETE"]


def test_a_full_disk_stops_the_study_and_loses_no_trial(opened):
    def objective(trial):
        if trial.number == 2:
            raise UserError(f"trial_{trial.number}/last.ckpt: no space left") from OSError(
                28, "No space left on device"
            )
        return [trial.suggest_float("x", 0, 1)]

    shared = opened(n_trials=6)
    with pytest.raises(UserError, match="no space left"):
        work(shared, objective)
    assert [trial.state.name for trial in finished(shared.study)] == ["COMPLETE", "COMPLETE"]
    assert shared.study.get_trials()[-1].state.name == "WAITING"


@pytest.mark.parametrize("pruned", [False, True])
def test_a_worker_whose_trial_went_to_another_says_so_and_goes_on(opened, pruned):
    shared = opened(n_trials=2)

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if trial.number == 0:
            with shared.alone():
                shared._give_up(shared.study.get_trials()[0])
            if pruned:
                raise optuna.TrialPruned
        return [x]

    said = work(shared, objective)
    assert "trial 0 was silent for too long" in said
    assert [trial.number for trial in finished(shared.study)] == [1, 2]


def test_timeout_begins_no_further_trial(opened):
    shared = opened(timeout=0.0001)
    assert "seconds are over" in work(shared)
    assert len(finished(shared.study)) <= 1


def test_a_grid_is_gone_through_once(opened):
    space = {"x": {"type": "float", "low": 0, "high": 1, "step": 0.25}}
    shared = opened(space=space, sampler="grid", n_trials=5)
    lost = []
    shared.given_up = lost.append
    work(shared, lambda trial: [trial.suggest_float("x", 0, 1, step=0.25)])
    assert sorted(params(shared)) == [0, 0.25, 0.5, 0.75, 1]
    assert not lost  # Optuna's own grid would end the study within the last trial


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "random"])
def test_samplers_learn_or_at_least_draw(opened, sampler):
    space = SPACE | {"z": {"type": "float", "low": 0, "high": 1}}
    shared = opened(space=space, sampler=sampler, n_trials=5, startup_trials=3)
    work(shared, lambda trial: [-((trial.suggest_float("x", 0, 1) - trial.suggest_float("z", 0, 1) - 0.3) ** 2)])
    assert len({(trial.params["x"], trial.params["z"]) for trial in finished(shared.study)}) == 5


@pytest.mark.parametrize("pruner", ["median", "hyperband", "wilcoxon"])
def test_pruners_stop_trials_that_fall_behind(opened, pruner):
    def objective(trial):
        x = 1 - trial.number / 100  # each is worse than those before
        for step in range(9):
            trial.report(x + step / 1000, step)
            if step and trial.should_prune():
                raise optuna.TrialPruned
        return [x]

    shared = opened(pruner=pruner, n_trials=8, startup_trials=2, sampler="random")
    work(shared, objective)
    states = [trial.state for trial in finished(shared.study)]
    assert states[0] == TrialState.COMPLETE
    assert TrialState.PRUNED in states


def test_every_fit_of_a_trial_warms_up():
    class Trial:
        def __init__(self):
            self.reported = []

        def report(self, value, step):
            self.reported.append(step)

        def should_prune(self):
            return True

    trial, first_epoch = Trial(), SimpleNamespace(callback_metrics={"val/f1_macro": 0.1}, current_epoch=0)
    second_fit = Watch(trial, "val/f1_macro", earlier=10, warmup=1)
    second_fit.on_train_epoch_end(first_epoch, None)
    first_epoch.current_epoch = 1
    with pytest.raises(optuna.TrialPruned):
        second_fit.on_train_epoch_end(first_epoch, None)
    assert trial.reported == [10, 11]


def test_importance_is_told_of_ten_trials_or_more(opened):
    def objective(trial):
        return [trial.suggest_float("x", 0, 1) + trial.suggest_float("z", 0, 1) / 100]

    space = SPACE | {"z": {"type": "float", "low": 0, "high": 1}}
    shared = opened(space=space, n_trials=9, sampler="random")
    work(shared, objective)
    assert importances(shared.study, 0) == {}
    work(opened(space=space, n_trials=40, sampler="random"), objective)
    shares = importances(shared.study, 0)
    assert shares["x"] > 0.7 > 0.3 > shares["z"]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_importance_is_for_being_among_the_best(direction):
    def objective(trial):
        # `top` alone decides who is best, `bottom` who is worst.
        top, bottom = trial.suggest_float("top", 0, 1), trial.suggest_float("bottom", 0, 1)
        value = 5 * (top > 0.9) - 5 * (bottom < 0.1) + trial.number / 1e4
        return value if direction == "maximize" else -value

    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=200)
    assert importances(study, 0)["top"] > 0.9


def test_memory_is_a_failure_of_the_trial():
    out = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
    assert fails_alone(out)
    assert not fails_alone(RuntimeError("shapes do not match"))
    assert not fails_alone(UserError("no data"))
    with pytest.raises(UserError) as told:
        raise UserError("lower data.batch_size") from out
    assert fails_alone(told.value)
