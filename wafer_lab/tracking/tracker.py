"""What a run needs from an experiment tracker, and the tracker that does nothing."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol


class Run(Protocol):
    """One tracked run, open while its ``with`` block lasts."""

    @property
    def id(self) -> str | None:
        """The run's id in the tracker, None where nothing is tracked."""

    @property
    def logger(self) -> Any:
        """A Lightning logger that writes into this run, or None."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record values by name (``val/f1_macro``), at a step or for the run as a whole."""

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Keep a copy of a file, or of a whole folder, with the run, under ``folder`` if given."""

    def how_to_open(self) -> str:
        """The command or address that shows the run to a person; empty where nothing is tracked."""


def log_files(run: Run, folder: Path, names: Iterable[str]) -> None:
    """Keep copies of those of some files and folders in ``folder`` that there are."""
    for name in names:
        if (folder / name).exists():
            run.log_artifact(folder / name)


class Tracker(Protocol):
    """Where runs are recorded."""

    def run(
        self,
        name: str,
        config: dict[str, Any],
        tags: dict[str, str],
        nested: bool = False,
        resumes: str | None = None,
    ) -> AbstractContextManager[Run]:
        """Open a run; leaving the block closes it with the status that the way out deserves.

        Args:
            name: what people will call the run.
            config: the resolved configuration, plain dicts, lists and scalars.
            tags: short facts to find runs by: git revision, split digest, data fingerprint.
            nested: make it a child of the run whose block encloses this one, where there is one.
            resumes: id of the run to go on with, where the tracker has it.
        """


class NullRun:
    """A run nobody records."""

    id: None = None
    logger: None = None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Do nothing."""

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Do nothing."""

    def how_to_open(self) -> str:
        """Nothing to open."""
        return ""


class NullTracker:
    """The tracker of ``tracking=none``: needs no package, keeps nothing."""

    @contextmanager
    def run(
        self,
        name: str,
        config: dict[str, Any],
        tags: dict[str, str],
        nested: bool = False,
        resumes: str | None = None,
    ) -> Iterator[Run]:
        """Open a run that records nothing; see :meth:`Tracker.run`."""
        yield NullRun()
