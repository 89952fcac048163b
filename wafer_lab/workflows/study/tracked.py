"""A study in the tracker: the one run that all workers share, and the runs of workers that died."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from wafer_lab.tracking.orphans import end_orphans
from wafer_lab.tracking.tracker import Run
from wafer_lab.workflows.study.storage import Shared

_RUN = "run_id"  # of the study, in the tracker


@contextmanager
def study_run(shared: Shared, tracker: Any, config: dict[str, Any], tags: dict[str, str]) -> Iterator[Run]:
    """The run that the runs of all trials stand in.

    One worker makes it, and the tracker's tables where there are none, and the others find it.

    Args:
        shared: the study.
        tracker: where runs are recorded.
        config: resolved configuration of plain dicts, lists and scalars.
        tags: short facts to find the run by.
    """
    with ExitStack() as stack, ExitStack() as locked:
        if _RUN not in shared.study.user_attrs:  # else nobody has to wait until MLflow is imported here
            locked.enter_context(shared.alone())
        earlier = shared.study.user_attrs.get(_RUN)
        tracked = stack.enter_context(tracker.run(shared.settings.name, config, tags, resumes=earlier))
        if tracked.id != earlier:
            shared.study.set_user_attr(_RUN, tracked.id)
        locked.close()
        yield tracked


def end_runs(tracker: Any, parent: str | None, number: int) -> None:
    """Say in the tracker that a trial's run is not going on."""
    try:
        end_orphans(tracker, parent, {"trial": str(number)}, "its worker left it unfinished; another trial repeats it")
    except Exception as error:  # the sweep is worth more than its record
        print(f"warning: the run of trial {number} could not be ended in MLflow: {error}", flush=True)
