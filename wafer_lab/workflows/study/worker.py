"""One process among those that work on a study: it takes trials until there are enough, whatever a trial is."""

import time
from collections.abc import Callable

import optuna
from optuna.trial import Trial, TrialState

from wafer_lab.errors import DivergedError, OutOfMemoryError, UserError
from wafer_lab.workflows.study.console import Console
from wafer_lab.workflows.study.storage import REASON, Shared

_POLL = 5  # seconds at most between looks at what other workers do
_NO_MEMORY = ("DefaultCPUAllocator", "out of memory")  # in the words of torch's RuntimeErrors


class Worker:
    """Takes trials of a study, runs them, and tells the study how they went.

    Args:
        shared: the study.
        objective: a trial -> the values of the objectives; raises TrialPruned where the pruner has seen enough.
        console: where every trial becomes a line.
    """

    def __init__(self, shared: Shared, objective: Callable[[Trial], list[float]], console: Console) -> None:
        self.shared, self.objective, self.console = shared, objective, console
        self._said = ""  # what went wrong last

    def work(self, timeout: float | None = None) -> None:
        """Run trials until enough are finished, by this worker or others, or the time is up.

        Args:
            timeout: seconds after which no further trial is begun.

        Raises:
            UserError: a trial made a mistake that every trial has made so far; it is queued again, for the next start.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        waits = False
        while limit is None or time.monotonic() < limit:
            trial = self.shared.claim()
            if trial is not None:
                self._try(trial)
                continue
            others = len(self.shared.running())
            if not others:
                if self.shared.taken() < self.shared.settings.n_trials:  # one was queued again just now
                    continue
                return
            if not waits:
                self.console.note(f"waiting for {others} trials of other workers; those of dead ones are taken over")
            waits = True
            time.sleep(min(_POLL, self.shared.settings.heartbeat))
        self.console.note(f"study.timeout={timeout} seconds are over")

    def _try(self, trial: Trial) -> None:
        """Run a trial; one whose end says nothing of its values is queued again."""
        started = time.monotonic()
        try:
            with self.shared.alive(trial):
                values = self._values(trial)
            self.shared.study.tell(trial, values, TrialState.PRUNED if values is None else None)
        except BaseException as error:
            if self.shared.lost(trial):
                self.console.note(f"trial {trial.number} was silent for too long and went to another worker")
                self.shared.given_up(trial.number)
                return
            if not self._is_of_the_trial(error):
                self.shared.hand_back(trial)
                raise
            self._said = str(error)
            trial.set_user_attr(REASON, (self._said.splitlines() or [type(error).__name__])[0][:300])
            self.shared.study.tell(trial, state=TrialState.FAIL)
        self.console.ended(trial.number, time.monotonic() - started)

    def _values(self, trial: Trial) -> list[float] | None:
        """Of the objectives; None where the trial was pruned."""
        try:
            return self.objective(trial)
        except optuna.TrialPruned:
            return None

    def _is_of_the_trial(self, error: BaseException) -> bool:
        """Whether the next trial may fare better: not after a bug, a full disk, or a mistake of all trials so far."""
        if fails_alone(error):
            return True
        if isinstance(error.__cause__, OSError):
            return False
        ended = self.shared.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        return isinstance(error, UserError) and bool(ended) and str(error) != self._said


def fails_alone(error: BaseException | None) -> bool:
    """Whether an error is of this trial's values, such that others may fare better: it diverged, or memory ran out."""
    while error is not None:
        if isinstance(error, DivergedError | OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY):
            return True
        error = error.__cause__
    return False
