"""What a sweep says while it runs: one line per trial, and on a terminal a bar below them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from wafer_lab.workflows.study.settings import Study
from wafer_lab.workflows.study.storage import REASON, finished


class Console:
    """The lines of a sweep.

    Args:
        settings: of the study.
        study: the study.
    """

    def __init__(self, settings: Study, study: optuna.Study) -> None:
        self.settings, self.study = settings, study
        self._bar: Any = None
        self._task: Any = None

    @contextmanager
    def open(self, folder: str) -> Iterator["Console"]:
        """Say what begins; show the bar while the block lasts."""
        done = len(finished(self.study))
        space = ", ".join(entry.key for entry in self.settings.entries)
        print(
            f"\nstudy   {self.settings.name}: {self.settings.n_trials} trials, {done} finished; sampler "
            f"{self.settings.sampler}, pruner {self.settings.pruner}\nsearch  {space}\nfor     "
            f"{', '.join(f'{one.metric} ({one.direction})' for one in self.settings.targets)}\nfolder  {folder}\n",
            flush=True,
        )
        with self._shown(done):
            yield self

    def ended(self, number: int, seconds: float) -> None:
        """One line for a trial that this worker has ended."""
        trials = {trial.number: trial for trial in self.study.get_trials(deepcopy=False)}
        print(line(self.settings, trials[number], seconds, self._best()), flush=True)
        if self._bar is not None:
            self._bar.update(self._task, completed=len(finished(self.study)))

    def note(self, text: str) -> None:
        """Say something else."""
        print(text, flush=True)

    def _best(self) -> str:
        if len(self.settings.targets) > 1:
            return f"{len(self.study.best_trials)} on the front"
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not complete:
            return ""
        best = self.study.best_trial
        return f"best {best.value:.4f}, trial {best.number}"

    @contextmanager
    def _shown(self, done: int) -> Iterator[None]:
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

        columns = ("trials", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn())
        with Progress(*columns, console=Terminal(stderr=True), transient=True) as self._bar:
            self._task = self._bar.add_task("trials", total=self.settings.n_trials, completed=done)
            yield
        self._bar = None


def line(settings: Study, trial: FrozenTrial, seconds: float, best: str) -> str:
    """What became of a trial, in one line."""
    sampled = "  ".join(f"{key}={short(value)}" for key, value in trial.params.items())
    words = [f"trial {trial.number:>3}", f"{trial.state.name.lower():8}"]
    if trial.state == TrialState.FAIL:
        words.append(str(trial.user_attrs.get(REASON)))
    elif trial.values:
        words += [f"{one.metric} {value:.4f}" for one, value in zip(settings.targets, trial.values, strict=True)]
    if trial.state == TrialState.PRUNED:
        words.append(f"at step {trial.last_step}")
    return "  ".join([*words, f"{seconds:.1f} s", sampled, *([f"({best})"] if best else [])])


def short(value: Any) -> str:
    """A sampled value in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
