"""Bootstrap intervals of every score against a loop over resamples: python benchmarks/intervals.py [RESAMPLES].

The loop is what a notebook does: draw rows, call scikit-learn for every score. It is timed on a few resamples and
scaled up. Both sides score the same simulated predictions, as many as WM-811K's test split has: 34,590 wafers of
9 classes. CPU time is of all threads; on a busy machine it says more than the wall clock. OMP_NUM_THREADS does not
matter here: the matrix product is not the BLAS's.
"""

import resource
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.evaluation.intervals import judge
from wafer_lab.metrics.reliability import classwise_calibration_error, expected_calibration_error

WAFERS, LOOPED = 34_590, 3
# Labelled maps of each class in WM-811K.
COUNTS = (4294, 555, 5189, 9680, 3593, 149, 866, 1193, 147_431)


def predictions() -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    random = np.random.default_rng(0)
    target = random.choice(len(COUNTS), WAFERS, p=np.array(COUNTS) / sum(COUNTS))
    logits = 1.5 * random.normal(size=(WAFERS, len(COUNTS)))
    logits[np.arange(WAFERS), target] += 5.5
    exponentials = np.exp(logits)
    return target, (exponentials / exponentials.sum(1, keepdims=True)).astype(np.float32)


def loop(
    target: NDArray[np.int64],
    decisions: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    cost: NDArray[np.float64],
) -> None:
    random = np.random.default_rng(1)
    for _ in range(LOOPED):
        rows = random.integers(0, WAFERS, WAFERS)
        true, called, p = target[rows], decisions[rows], probabilities[rows].astype(np.float64)
        metrics.accuracy_score(true, called)
        metrics.balanced_accuracy_score(true, called)
        for average in ("macro", None):
            metrics.precision_recall_fscore_support(true, called, average=average)
        confusion = metrics.confusion_matrix(true, called)
        (confusion * cost).sum()
        metrics.log_loss(true, p)
        np.square(p - np.eye(len(COUNTS))[true]).sum(1).mean()
        for spacing in ("width", "mass"):
            expected_calibration_error(p, true, spacing=spacing)
        classwise_calibration_error(p, true)
        for k in range(len(COUNTS)):
            metrics.roc_auc_score(true == k, p[:, k])
            metrics.average_precision_score(true == k, p[:, k])


def timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    warnings.simplefilter("ignore")  # float32 probabilities do not sum to 1 within scikit-learn's tolerance
    resamples = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    target, probabilities = predictions()
    decisions = probabilities.argmax(1)
    cost = 1 - np.eye(len(COUNTS))
    cost[:-1, -1] = 10
    lot = np.array([f"lot{i // 25}" for i in range(WAFERS)])

    def judged(lot: NDArray[np.str_] | None) -> None:
        judge(target, decisions, probabilities, WM811K_CLASSES, "multiclass", cost=cost, lot=lot, resamples=resamples)

    rows = {"judge, wafers": timed(lambda: judged(None)), "judge, lots of 25": timed(lambda: judged(lot))}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    few = timed(lambda: loop(target, decisions, probabilities, cost))
    rows[f"loop, from {LOOPED} resamples"] = (few[0] * resamples / LOOPED, few[1] * resamples / LOOPED)
    print(f"{WAFERS:,} wafers, {len(COUNTS)} classes, {resamples:,} resamples, every score; peak {peak:,.0f} MB")
    print("how                       wall, s     CPU, s")
    for name, (wall, cpu) in rows.items():
        print(f"{name:<24}  {wall:>7.1f}  {cpu:>9.1f}")


if __name__ == "__main__":
    main()
