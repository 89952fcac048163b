"""A worker without training, as tests start several of.

worker.py STORAGE MLFLOW ARTIFACTS N_TRIALS WORKERS [die_in|die_logging]
"""

import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
import optuna  # noqa: E402

from wafer_lab.tracking.mlflow_tracker import MLflowTracker  # noqa: E402
from wafer_lab.workflows.study.console import Console  # noqa: E402
from wafer_lab.workflows.study.settings import Study  # noqa: E402
from wafer_lab.workflows.study.storage import Shared  # noqa: E402
from wafer_lab.workflows.study.tracked import end_runs, study_run  # noqa: E402
from wafer_lab.workflows.study.worker import Worker  # noqa: E402


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage, uri, artifacts, n_trials, workers, *dies = sys.argv[1:]
    settings = Study(
        name="toy",
        space={"x": {"type": "float", "low": 0, "high": 1}},
        objectives=[{"metric": "y", "direction": "max"}],
        storage=storage,
        n_trials=int(n_trials),
        pruner="none",
        heartbeat=3,
    )
    shared = Shared(settings, {"command": []}, 1)
    tracker = MLflowTracker(uri, "wafer_lab", artifacts)
    with study_run(shared, tracker, {}, {}) as tracked:
        work(shared, tracker, tracked.id, int(workers), *dies)


def work(shared: Shared, tracker: MLflowTracker, parent: str, workers: int, dies: str = "") -> None:
    """Wait until all workers are there, then take trials; die as told in the first one."""
    shared.given_up = lambda number: end_runs(tracker, parent, number)

    def objective(trial: optuna.Trial) -> list[float]:
        x = trial.suggest_float("x", 0, 1)
        with tracker.run(f"trial_{trial.number}", {"x": x}, {"trial": str(trial.number)}, nested=True) as run:
            time.sleep(0.3)
            if dies == "die_in":
                os.kill(os.getpid(), signal.SIGKILL)
            if dies == "die_logging":  # the values are sent, and the answer never comes
                send = run._client.log_batch

                def last(*args: Any, **kwargs: Any) -> None:
                    send(*args, **kwargs)
                    os.kill(os.getpid(), signal.SIGKILL)

                run._client.log_batch = last
            run.log_metrics({"y": x})
        return [x]

    Path(f"ready_{os.getpid()}").touch()
    while len(list(Path().glob("ready_*"))) < workers:  # none of them may come too late to die
        time.sleep(0.05)

    Worker(shared, objective, Console(shared.settings, shared.study)).work()


if __name__ == "__main__":
    main()
