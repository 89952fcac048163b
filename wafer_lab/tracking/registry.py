"""Exported files in MLflow's model registry."""

from pathlib import Path
from typing import NamedTuple

from wafer_lab.errors import UserError
from wafer_lab.tracking.mlflow_tracker import MLflowTracker


class Registered(NamedTuple):
    """A version in the registry.

    Attributes:
        name: Of the model.
        version: Counted by the registry.
        uri: The store, as `MLFLOW_TRACKING_URI` takes it.
    """

    name: str
    version: str
    uri: str


def register(file: Path, tracker: MLflowTracker, name: str, alias: str | None, run_id: str | None) -> Registered:
    """Log an exported file with a run of its own, and make it a version of a registered model.

    The run that trained it stays as it is: its config, its status and its metrics are a record.

    Args:
        file: What `wafer-lab export` wrote.
        tracker: Says where runs are recorded.
        name: Of the registered model, made where there is none.
        alias: Points to this version from now on, such as `champion`; None: none.
        run_id: The run that trained it, for the record; None where it was not tracked.

    Raises:
        UserError: MLflow is missing, its store cannot be used, or it refuses the name or alias.
    """
    facts = {"file": file.name, "trained_by": run_id or "a run that was not tracked"}
    with tracker.run(f"export {name}", facts, facts) as run:
        import mlflow
        from mlflow.exceptions import MlflowException
        from mlflow.models import Model

        from wafer_lab.export import mlflow_flavour

        before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
        try:
            mlflow.set_tracking_uri(tracker.uri)
            mlflow.set_registry_uri(tracker.uri)
            client = mlflow.MlflowClient()
            # of the run's experiment: by itself MLflow takes the default one, whose files go to ./mlruns
            experiment = client.get_run(run.id).info.experiment_id
            logged = client.create_logged_model(experiment, name="model", source_run_id=run.id)
            info = Model.log(
                None,
                flavor=mlflow_flavour,
                model_id=logged.model_id,
                registered_model_name=name,
                run_id=run.id,
                file=file,
            )
            version = str(info.registered_model_version)
            if alias:
                client.set_registered_model_alias(name, alias, version)
        except MlflowException as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"MLflow does not register {name} ({reason}); choose another --register or --alias"
            ) from None
        finally:
            mlflow.set_tracking_uri(before[0])
            mlflow.set_registry_uri(before[1])
    return Registered(name, version, tracker.uri)
