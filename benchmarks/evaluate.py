"""How long `wafer-lab evaluate` takes, and how much memory, on a table as large as WM-811K's test set.

    python benchmarks/evaluate.py

17,295 val and 34,590 test wafers of nine classes, 85 % none, in eight views, with everything on: TTA, temperature,
all rules, curves, prediction sets, intervals over lots and wafers, figures, both reports. The command runs in a process
of its own, imports included.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.evaluation.predictions import Predictions

VAL, TEST, VIEWS = 17_295, 34_590, 8
# WM-811K's class frequencies among labelled wafers.
PRIOR = np.array([4294, 555, 5189, 9680, 3593, 149, 866, 1193, 147431]) / 172950
CONFIG = """
name: benchmark
seed: 0
figures: true
data: {path: nowhere, cache: nowhere, seed: 0}
task: {monitor: val/f1_macro, mode: max}
"""


def table(lots: bool) -> Predictions:
    """Predictions of a model that is right where it is sure, its views differing a little."""
    random = np.random.default_rng(0)
    wafers, classes = VAL + TEST, len(WM811K_CLASSES)
    target = random.choice(classes, wafers, p=PRIOR)
    seen = random.normal(size=(1, wafers, classes)) + 2.6 * np.eye(classes)[target]
    logits = 2 * (2.6 * seen + np.log(PRIOR)) + random.normal(0, 0.7, (VIEWS, wafers, classes))
    return Predictions(
        index=np.tile(np.arange(wafers), VIEWS),
        split=np.tile(np.where(np.arange(wafers) < VAL, "val", "test"), VIEWS),
        view=np.repeat(np.arange(VIEWS, dtype=np.int8), wafers),
        target=np.tile(target, VIEWS),
        logits=logits.reshape(-1, classes).astype(np.float32),
        class_names=WM811K_CLASSES,
        target_kind="multiclass",
        split_digest="benchmark",
        data_fingerprint="benchmark",
        lot=np.tile(np.char.add("lot", (np.arange(wafers) // 4).astype(str)), VIEWS) if lots else None,
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("| bootstrap over | seconds | CPU seconds | peak memory, MB |\n| --- | --- | --- | --- |")
    options = ["--tta", "d4", "--calibration", "temperature", "--decision", "cost", "--cost-ratio", "10"]
    for lots in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            table(lots).write(Path(folder) / "predictions.parquet")
            (Path(folder) / "config.yaml").write_text(CONFIG)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started = time.perf_counter()
            command = [str(Path(sys.executable).with_name("wafer-lab")), "evaluate", folder, *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(
            f"| {'lots' if lots else 'wafers'} | {seconds:.1f} | {used:.1f} | {after.ru_maxrss / 1024:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
