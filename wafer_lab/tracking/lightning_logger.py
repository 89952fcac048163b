"""The Lightning side of a tracked run; importing this imports Lightning."""

from collections.abc import Mapping

from lightning.pytorch.loggers import MLFlowLogger
from mlflow.tracking import MlflowClient

from wafer_lab.tracking.tracker import Run


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger, writing into a run that somebody else opened and will close.

    Only the process of rank 0 ever has one: elsewhere the tracker opens no run.

    Lightning's own closes the run after every ``fit`` and ``test`` and points the whole process, environment
    included, at its store. Here the run's owner decides the status and nothing outside the run changes.
    """

    def __init__(self, run: Run, client: MlflowClient, uri: str, experiment: str, experiment_id: str) -> None:
        super().__init__(experiment_name=experiment, tracking_uri=uri, run_id=run.id)
        self._run = run
        self._client = client
        self._owner_experiment_id = experiment_id

    @property
    def experiment(self) -> MlflowClient:
        """The client of the run's store."""
        return self._client

    @property
    def experiment_id(self) -> str | None:
        """The id of the experiment that the run belongs to."""
        return self._owner_experiment_id

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record values at a step."""
        self._run.log_metrics(metrics, step)

    def finalize(self, status: str = "success") -> None:
        """Leave the run open: its owner closes it, with the status of the whole workflow."""
