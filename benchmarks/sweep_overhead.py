"""What a sweep adds to its fits: wall time of every trial outside of `fit`, with MLflow and the default storage.

    python benchmarks/sweep_overhead.py [trials]

Fits are those of debug=smoke; what is measured does not depend on them. The first trial includes imports of what the
study needs and the first composition.
"""

import os
import runpy
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]


def main(trials: int = 6) -> None:
    with tempfile.TemporaryDirectory() as outputs:
        os.environ["WAFER_LAB_OUTPUTS"] = outputs
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.chdir(REPOSITORY)
        sys.argv = ["sweep.py", "study=loss", "debug=smoke", "data.source.num_wafers=300", f"study.n_trials={trials}"]
        rows = [(spent - inside, inside) for spent, inside in measured()]
    print("\ntrial  fit (s)  outside of fit (s)")
    for number, (outside, inside) in enumerate(rows):
        print(f"{number:>5}  {inside:7.2f}  {outside:18.2f}")
    print(f"median outside of fit after the first trial: {np.median([outside for outside, _ in rows[1:]]):.2f} s")


def measured() -> list[tuple[float, float]]:
    """Wall seconds of each trial, from taking it to telling how it went, and of the fit within."""
    from wafer_lab.workflows.study import run, trial, worker

    fits, marks = [], []
    fit, claim, ended = trial.fit, run.Shared.claim, worker.Console.ended

    def timed_fit(*args: object, **kwargs: object) -> object:
        started = time.perf_counter()
        try:
            return fit(*args, **kwargs)
        finally:
            fits.append(time.perf_counter() - started)

    def timed_claim(self: object) -> object:
        marks.append(time.perf_counter())
        return claim(self)

    def timed_end(self: object, *args: object) -> None:
        ended(self, *args)
        marks.append(time.perf_counter())

    with (
        patch.object(trial, "fit", timed_fit),
        patch.object(run.Shared, "claim", timed_claim),
        patch.object(worker.Console, "ended", timed_end),
    ):
        runpy.run_path(str(REPOSITORY / "sweep.py"), run_name="__main__")
    return [(end - begin, inside) for begin, end, inside in zip(marks[::2], marks[1::2], fits, strict=False)]


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6)
