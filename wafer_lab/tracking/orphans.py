"""Runs whose process has died: nobody is left to say how they ended, so somebody else has to."""

from collections.abc import Mapping
from typing import Any

from wafer_lab.tracking.limits import brief_requests
from wafer_lab.tracking.mlflow_tracker import MLflowTracker

_SECONDS = 10


def end_orphans(tracker: Any, parent: str | None, tags: Mapping[str, str], why: str) -> int:
    """End the children of a run that have some tags as KILLED, those within them too, whatever they count as.

    Args:
        tracker: where runs are recorded; one that records none has no orphans.
        parent: id of the run they stand in.
        tags: what they were tagged with when they were opened.
        why: is kept with each as the tag ``ended``.

    Returns:
        How many there were.
    """
    if parent is None or not isinstance(tracker, MLflowTracker):
        return 0
    with brief_requests(_SECONDS):  # others wait meanwhile
        return _end(tracker, parent, tags, why)


def _end(tracker: MLflowTracker, parent: str, tags: Mapping[str, str], why: str) -> int:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracker.uri, registry_uri=tracker.uri)
    experiment = client.get_experiment_by_name(tracker.experiment).experiment_id
    wanted = {"mlflow.parentRunId": parent, **tags}
    words = [f"tags.`{key}` = '{value}'" for key, value in wanted.items()]
    found = client.search_runs([experiment], " and ".join([*words, "attributes.status != 'KILLED'"]))
    for run in found:
        _end(tracker, run.info.run_id, {}, why)
        client.set_tag(run.info.run_id, "ended", why)
        client.set_terminated(run.info.run_id, "KILLED")
    return len(found)
