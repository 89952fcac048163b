"""What a smaller file costs: python benchmarks/compress.py RUN FOLDER [EPOCHS].

Exports a run four times, as it is, in INT8, pruned by half and fine-tuned, and both, into FOLDER (what is there already
is taken as it is), and judges each file on the run's test wafers, as it decides. Intervals are 95 %, bootstrap over
wafers. Times are medians of interleaved rounds on one thread, drawing included: one wafer alone by the wall clock, a
batch of 256 by the CPU clock, which other work on the machine does not disturb.
"""

import gzip
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from wafer_lab.evaluation.intervals import judge
from wafer_lab.export.predictor import BATCH, WaferModel
from wafer_lab.export.quantise import quantise
from wafer_lab.workflows.export import export_run, training_wafers
from wafer_lab.workflows.finished import datamodule_of, read_config

VARIANTS = ["fp32", "INT8", "pruned", "pruned, INT8"]
ROUNDS = 15


def main() -> None:
    run, folder, epochs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 2
    datamodule = datamodule_of(read_config(run), run)
    datamodule.setup()
    rows, target = datamodule.split.test, datamodule.labels("test")
    maps = [datamodule.store.map(int(row)) for row in rows]
    files = {name: folder / f"{name.replace(', ', '_').lower()}.onnx" for name in VARIANTS}
    for name, prune in (("fp32", None), ("pruned", 0.5)):
        small = "INT8" if name == "fp32" else f"{name}, INT8"
        if not files[name].exists():
            export_run(run, files[name], prune=prune, epochs=epochs)
        if not files[small].exists():
            quantise(files[name], training_wafers(datamodule), WaferModel(files[name]).description, files[small])
    models = {name: WaferModel(file, threads=1) for name, file in files.items()}
    times = timed(models, maps)
    print("| file | MB | gzip, MB | one wafer, ms | wafers a CPU second | macro F1 | same class as fp32 |")
    print("| --- | ---: | ---: | ---: | ---: | --- | ---: |")
    first = None
    for name, model in models.items():
        parts = [model.probabilities(maps[i : i + BATCH]) for i in range(0, len(maps), BATCH)]
        probabilities = np.concatenate(parts).astype(np.float64)
        if model.predictor.target_kind == "multiclass":
            probabilities /= probabilities.sum(1, keepdims=True)  # float32 sums to 1 within its own rounding only
        decisions = model.predictor.decision(probabilities)
        first = decisions if first is None else first
        kind, names = model.predictor.target_kind, model.class_names
        scores, intervals = judge(target, decisions, probabilities, names, kind, ranking=False)
        low, high = intervals["f1_macro"]
        content = files[name].read_bytes()
        cells = [name, f"{len(content) / 1e6:.2f}", f"{len(gzip.compress(content)) / 1e6:.2f}"]
        cells += [f"{times[name][0] * 1e3:.2f}", f"{BATCH / times[name][1]:,.0f}"]
        same = np.mean(decisions == first)
        print(f"| {' | '.join(cells)} | {scores['f1_macro']:.4f} [{low:.4f}, {high:.4f}] | {same:.2%} |")


def timed(models: dict[str, WaferModel], maps: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Median seconds of one wafer and of a batch, every model in turn."""
    one: dict[str, list[float]] = {name: [] for name in models}
    many: dict[str, list[float]] = {name: [] for name in models}
    for round_ in range(ROUNDS):
        for name, model in models.items():
            for wafer in maps[round_ * 8 : round_ * 8 + 8]:
                one[name].append(seconds(time.perf_counter, lambda m=model, w=wafer: m.probabilities([w])))
            many[name].append(seconds(time.process_time, lambda m=model: m.probabilities(maps[:BATCH])))
    return {name: (median(one[name]), median(many[name])) for name in models}


def seconds(clock: Callable[[], float], work: Callable[[], object]) -> float:
    start = clock()
    work()
    return clock() - start


if __name__ == "__main__":
    main()
