"""How many wafers a second the simulator makes on one core.

python benchmarks/simulator.py
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

from time import process_time

from wafer_lab.data.simulator import Simulator

WAFERS = 5_000
CASES = {
    "multiclass, WM-811K's grids": {},
    "multiclass, WM-811K's frequencies": {"class_frequencies": "wm811k"},
    "multilabel, WM-811K's grids": {"target": "multilabel"},
    "multilabel, 52 x 52 dies": {"target": "multilabel", "shape": (52, 52)},
    "multiclass, 175 x 175 dies": {"shape": (175, 175), "num_wafers": 500},
}


def measure(**parameters) -> tuple[float, float]:
    """Wafers and millions of dies per second of CPU time, the best of three runs."""
    simulator = Simulator(**{"num_wafers": WAFERS, **parameters})
    seconds = []
    for _ in range(3):
        start = process_time()
        cells = sum(len(rows.cells) for rows in simulator.rows())
        seconds.append(process_time() - start)
    return simulator.num_wafers / min(seconds), cells / min(seconds) / 1e6


def main() -> None:
    print(f"{'case':36}{'wafers/s':>10}{'Mdies/s':>10}")
    for name, parameters in CASES.items():
        wafers, dies = measure(**parameters)
        print(f"{name:36}{wafers:10,.0f}{dies:10.1f}")


if __name__ == "__main__":
    main()
