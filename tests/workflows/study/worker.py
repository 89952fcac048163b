"""A worker without training, as tests start several of.

worker.py STORAGE MLFLOW ARTIFACTS N_TRIALS [die_in|die_logging]
"""

import os
import signal
import sys
import time
import warnings

warnings.simplefilter("ignore")
import optuna  # noqa: E402

from wafer_lab.tracking.mlflow_tracker import MLflowTracker  # noqa: E402
from wafer_lab.tracking.orphans import end_orphans  # noqa: E402
from wafer_lab.workflows.study.console import Console  # noqa: E402
from wafer_lab.workflows.study.settings import Study  # noqa: E402
from wafer_lab.workflows.study.storage import Shared  # noqa: E402
from wafer_lab.workflows.study.worker import Worker  # noqa: E402


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage, uri, artifacts, n_trials, *dies = sys.argv[1:]
    settings = Study(
        name="toy",
        space={"x": {"type": "float", "low": 0, "high": 1}},
        objectives=[{"metric": "y", "direction": "max"}],
        storage=storage,
        n_trials=int(n_trials),
        pruner="none",
        heartbeat=1,
    )
    shared = Shared(settings, {"command": []}, 1)
    tracker = MLflowTracker(uri, "wafer_lab", artifacts)
    with shared.alone():
        earlier = shared.study.user_attrs.get("run_id")
        opened = tracker.run("toy", {}, {}, resumes=earlier)
        tracked = opened.__enter__()
        if earlier is None:
            shared.study.set_user_attr("run_id", tracked.id)
    shared.given_up = lambda number: end_orphans(tracker, tracked.id, {"trial": str(number)}, "dead")

    def objective(trial: optuna.Trial) -> list[float]:
        x = trial.suggest_float("x", 0, 1)
        with tracker.run(f"trial_{trial.number}", {"x": x}, {"trial": str(trial.number)}, nested=True) as run:
            time.sleep(0.3)
            if dies == ["die_in"]:
                os.kill(os.getpid(), signal.SIGKILL)
            if dies == ["die_logging"]:  # the values are sent, and the answer never comes
                log = type(run)._attempt

                def attempt(self, call, *args, **kwargs):
                    log(self, call, *args, **kwargs)
                    os.kill(os.getpid(), signal.SIGKILL)

                type(run)._attempt = attempt
            run.log_metrics({"y": x})
        return [x]

    Worker(shared, objective, Console(settings, shared.study)).work()
    opened.__exit__(None, None, None)


if __name__ == "__main__":
    main()
