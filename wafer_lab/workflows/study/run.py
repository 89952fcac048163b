"""The sweep: trials until the study has enough, then what was found. Several processes may run it on one study."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from optuna.trial import Trial, TrialState

from wafer_lab.config.build import build, resolved
from wafer_lab.config.study import trial_overrides
from wafer_lab.errors import UserError
from wafer_lab.evaluation.provenance import git_revision
from wafer_lab.tracking.orphans import end_orphans
from wafer_lab.workflows import run_files
from wafer_lab.workflows.quiet import silence
from wafer_lab.workflows.study import report
from wafer_lab.workflows.study.console import Console
from wafer_lab.workflows.study.settings import Study
from wafer_lab.workflows.study.storage import REASON, Shared
from wafer_lab.workflows.study.trial import composed, epochs_of, fails_alone, run_trial, sample

_RUN = "run_id"  # of the study, in the tracker
_POLL = 5  # seconds at most between looks at what other workers do


def sweep(cfg: DictConfig) -> optuna.Study:
    """Run trials until `study.n_trials` are finished, and report.

    Args:
        cfg: A composed and validated config of sweep.py, under Hydra.

    Returns:
        The study.

    Raises:
        UserError: The storage, the data or the tracker are not what the config says.
    """
    silence()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings: Study = build(cfg.study)
    overrides = trial_overrides(HydraConfig.get().overrides.task)
    folder = Path(cfg.paths.run)
    shared = Shared(settings, _identity(settings, overrides), epochs_of(cfg))
    tracker = build(cfg.tracking)
    with ExitStack() as stack:
        with shared.alone():  # one worker makes the store and the study's run, the others find them
            earlier = shared.study.user_attrs.get(_RUN)
            config = run_files.choices() | resolved(cfg)
            tags = {"git_revision": git_revision(), "study": settings.name}
            tracked = stack.enter_context(tracker.run(settings.name, config, tags, resumes=earlier))
            if tracked.id != earlier:
                shared.study.set_user_attr(_RUN, tracked.id)
        shared.given_up = lambda number: _end_runs(tracker, tracked.id, number)
        console = stack.enter_context(Console(settings, shared.study).open(str(folder)))
        try:
            _Worker(folder, settings, overrides, shared, console).work()
        except KeyboardInterrupt:
            console.note("\nto go on: the same command")
            raise
        with shared.alone():
            report.write(folder, shared.study, settings, overrides, tracked)
    return shared.study


class _Worker:
    """One process among those that work on a study."""

    def __init__(self, folder: Path, settings: Study, overrides: list[str], shared: Shared, console: Console) -> None:
        self.folder, self.settings, self.overrides = folder, settings, overrides
        self.shared, self.console = shared, console
        self._said = ""  # what went wrong last

    def work(self) -> None:
        """Run trials until there are enough, or the time is up."""
        limit = None if self.settings.timeout is None else time.monotonic() + self.settings.timeout
        waits = False
        while limit is None or time.monotonic() < limit:
            trial = self.shared.claim()
            if trial is not None:
                self._try(trial)
                continue
            others = len(self.shared.running())
            if not others:
                return
            if not waits:
                self.console.note(f"waiting for {others} trials of other workers; those of dead ones are taken over")
            waits = True
            time.sleep(min(_POLL, self.settings.heartbeat))
        self.console.note(f"study.timeout={self.settings.timeout} seconds are over")

    def _try(self, trial: Trial) -> None:
        """Run a trial and tell the study how it went; one that says nothing of its values is queued again."""
        started = time.monotonic()
        try:
            with self.shared.alive(trial):
                sampled = sample(self.settings.entries, trial)
                place = self.folder / f"trial_{trial.number}"
                with composed(self.overrides, sampled, self.settings.name, place) as one:
                    values = run_trial(one, self.settings, trial)
            self.shared.study.tell(trial, values)
        except optuna.TrialPruned:
            self.shared.study.tell(trial, state=TrialState.PRUNED)
        except BaseException as error:
            if self.shared.lost(trial):
                self.console.note(f"trial {trial.number} was silent for too long and went to another worker")
                self.shared.given_up(trial.number)
                return
            if not self._is_of_the_trial(error):
                self.shared.hand_back(trial)
                raise
            self._said = str(error)
            trial.set_user_attr(REASON, self._said.splitlines()[0][:300])
            self.shared.study.tell(trial, state=TrialState.FAIL)
        self.console.ended(trial.number, time.monotonic() - started)

    def _is_of_the_trial(self, error: BaseException) -> bool:
        """Whether the next trial may fare better: not after a bug, nor a mistake that all trials have made so far."""
        if fails_alone(error):
            return True
        complete = self.shared.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        return isinstance(error, UserError) and bool(complete) and str(error) != self._said


def _identity(settings: Study, overrides: list[str]) -> dict[str, Any]:
    """What makes trials comparable; where things are, and how many trials there shall be, is not part of it."""
    kept = sorted(text for text in overrides if not text.lstrip("+~").startswith(("paths", "tracking", "figures")))
    known = {"command": kept, "space": settings.space, "objectives": settings.objectives, "seeds": settings.seeds}
    return dict(json.loads(json.dumps(known)))


def _end_runs(tracker: Any, parent: str | None, number: int) -> None:
    """Say in the tracker that a trial's run is not going on."""
    try:
        end_orphans(tracker, parent, {"trial": str(number)}, "its worker left it unfinished; another trial repeats it")
    except Exception as error:  # the sweep is worth more than its record
        print(f"warning: the run of trial {number} could not be ended in MLflow: {error}", flush=True)
