"""Preparing and opening the whole of WM-811K against unpickling it: python benchmarks/prepare.py [ROWS] [FOLDER].

A LSWMD.pkl of 811,457 rows is made of the real sample (WAFER_LAB_REAL_DATA), repeated, with empty labels on 79 % of
them as in the published file, written by the pandas at hand. Then, each in a process of its own: preparing the store;
opening it; and unpickling the file, which earlier systems do in every process. Memory is the most that the process
held (VmHWM) above what its imports take. The files are deleted at the end.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import FULL, Sample, arguments, publish, table

OPENINGS = 5


def make(rows: int, out: Path) -> None:
    import numpy as np
    import pandas as pd

    sample = Sample()
    maps, names, count = sample.maps(), sample.class_names, sample.count
    hidden, empty = np.random.default_rng(0).random(rows) < 638_507 / FULL, np.empty((0, 0), dtype="<U8")
    pd.DataFrame(
        {
            # Copies, because a pickle writes the same object only once.
            "waferMap": [maps[i % count].copy() for i in range(rows)],
            "dieSize": [float(np.count_nonzero(maps[i % count])) for i in range(rows)],
            "lotName": [f"lot{i // 25 + 1}" for i in range(rows)],
            "waferIndex": np.arange(rows) % 25 + 1.0,
            "trianTestLabel": [empty if unknown else np.array([["Training"]]) for unknown in hidden],
            "failureType": [empty if hidden[i] else np.array([[names[sample.label[i % count]]]]) for i in range(rows)],
        }
    ).to_pickle(out)


def work(kind: str, file: Path, store: Path) -> None:
    """Do one thing and print its seconds, of the clock and of the CPU; the imports do not count."""
    import pandas as pd

    from wafer_lab.data import prepare
    from wafer_lab.data.readers import open_source
    from wafer_lab.data.store import Store

    resident = _memory("VmRSS")
    start = time.perf_counter(), time.process_time()
    if kind == "prepare":
        prepare.prepare(open_source(file), store)
    elif kind == "open":
        opened = Store.open(store)
        assert len(opened) > 0
    else:
        pd.read_pickle(file)
    spent = time.perf_counter() - start[0], time.process_time() - start[1]
    print(*spent, _memory("VmHWM") - resident)


def _memory(name: str) -> float:
    """Of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1e3


def measured(kind: str, file: Path, store: Path) -> tuple[float, float, float]:
    """Seconds of the clock and of the CPU, MB above what the imports take; of the median by CPU."""
    times = OPENINGS if kind == "open" else 1
    runs = []
    for _ in range(times):
        said = subprocess.run(
            [sys.executable, __file__, kind, str(file), str(store)], stdout=subprocess.PIPE, check=True
        )
        runs.append(tuple(float(word) for word in said.stdout.split()))
    return sorted(runs, key=lambda run: run[1])[times // 2]


def main() -> None:
    words = arguments()
    if words and words[0] in ("prepare", "open", "unpickle"):
        work(words[0], Path(words[1]), Path(words[2]))
        return
    rows = int((words or [FULL])[0])
    with tempfile.TemporaryDirectory(dir=words[1] if len(words) > 1 else None) as folder:
        file, store = Path(folder) / "LSWMD.pkl", Path(folder) / "store"
        subprocess.run(
            [sys.executable, "-c", f"import prepare, pathlib; prepare.make({rows}, pathlib.Path({str(file)!r}))"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
            check=True,
        )
        found = {kind: measured(kind, file, store) for kind in ("prepare", "open", "unpickle")}
        sizes = file.stat().st_size / 1e6, sum(part.stat().st_size for part in store.iterdir()) / 1e6
    names = {
        "prepare": "preparing the store, once",
        "open": f"opening the store, every process (median of {OPENINGS})",
        "unpickle": "`pandas.read_pickle`, every process of earlier systems",
    }
    lines = [(names[kind], *(f"{value:,.3f}" for value in found[kind][:2]), f"{found[kind][2]:,.0f}") for kind in names]
    times = found["unpickle"][1] / found["open"][1]
    publish(
        "preparation",
        f"{rows:,} rows: a file of {sizes[0]:,.0f} MB becomes a store of {sizes[1]:,.0f} MB. Opening takes one "
        f"{times:,.0f}th of the CPU time of unpickling, and preparing {found['prepare'][1] / found['unpickle'][1]:.1f} "
        "times that time.",
        table(("what", "clock, s", "CPU, s", "memory, MB"), lines),
    )


if __name__ == "__main__":
    main()
