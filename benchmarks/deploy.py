"""One wafer and many, by the exported file and by PyTorch: python benchmarks/deploy.py RUN MODEL.onnx [THREADS].

The wafers are the run's test wafers at their own sizes, and both sides start from them: drawing, network, calibration
and decision are counted, starting up is not. Rounds of the two are interleaved, so that other work on the machine slows
both. Single wafers are timed by the wall clock. Batches are timed by the CPU clock of the process, because other work
makes their wall clock meaningless: with one thread, which is the default, that is what an idle core would take.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from wafer_lab.export.predictor import BATCH, WaferModel, named
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.finished import datamodule_of, read_config
from wafer_lab.workflows.inference import NetworkJudge
from wafer_lab.workflows.labelling import Judge

SINGLE, ROUNDS = 600, 21


def main() -> None:
    run, file, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1
    torch.set_num_threads(threads)
    datamodule = datamodule_of(read_config(run), run)
    datamodule.setup()
    maps = [datamodule.store.map(int(row)) for row in datamodule.split.test[: BATCH * 4]]
    judges = {"onnxruntime": WaferModel(file, threads=threads), "PyTorch": NetworkJudge(load_task(run))}
    one = interleaved(judges, [[wafer] for wafer in maps[:SINGLE]], time.perf_counter)
    many = interleaved(judges, [maps[:BATCH]] * ROUNDS, time.process_time)
    print(f"threads: {threads}; {Path(file).name}")
    print("| | one wafer: p50, ms | p99, ms | wafers a CPU second, in batches of 256 |")
    print("| --- | ---: | ---: | ---: |")
    for name in judges:
        p50, p99 = np.quantile(one[name], [0.5, 0.99]) * 1e3
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {BATCH / np.median(many[name]):,.0f} |")
    single, batch = (np.median(t["PyTorch"]) / np.median(t["onnxruntime"]) for t in (one, many))
    print(f"\nPyTorch takes {single:.1f} times as long for one wafer and {batch:.1f} times as long for a batch")


def interleaved(judges: dict, batches: list[list[np.ndarray]], clock: Callable[[], float]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in judges}
    for judge in judges.values():  # what is set up at the first call is not counted
        decided(judge, batches[0])
    for batch in batches:
        for name, judge in judges.items():
            start = clock()
            decided(judge, batch)
            times[name].append(clock() - start)
    return times


def decided(judge: Judge, wafers: list[np.ndarray]) -> list[str]:
    return named(judge.predictor, np.asarray(judge.probabilities(wafers), np.float64))


if __name__ == "__main__":
    main()
