"""How the cost of batches grows: python benchmarks/scaling.py, or with --quick.

Wafers per second of the CPU, on one core, over the number of wafers (the real sample, repeated), the canvas and the
batch; and of the clock over the number of worker processes that draw, where the maps lie in memory and not where the
model is. Every point is a process of its own; its memory is the most it held (VmHWM) above what its imports take.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from measuring import FULL, REPOSITORY, Sample, arguments, publish, table

DEFAULT = {"wafers": 49_798, "canvas": 64, "batch": 128, "workers": 0}
POINTS = {
    "wafers": (10_000, 49_798, 200_000, FULL),
    "canvas": (32, 64, 96, 128, 224),
    "batch": (32, 128, 512),
    "workers": (0, 1, 2),
}
TURNS = 3
FIGURE = REPOSITORY / "docs" / "figures" / "performance_scaling.png"


def memory(name: str) -> float:
    """Of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1e3


def measure(cache: str, wafers: int, canvas: int, batch: int, workers: int) -> dict[str, float]:
    """Draw training batches for a while."""
    import torch

    from wafer_lab.data.augment import MapAugment
    from wafer_lab.data.maps import MapDataModule
    from wafer_lab.data.prepare import cached

    torch.set_num_threads(1)
    store, before = cached(Sample(wafers), cache), memory("VmRSS")
    start = time.perf_counter()
    data = MapDataModule(
        source=store, cache="", target="multiclass", num_classes=9, in_channels=3, canvas=canvas, batch_size=batch,
        augment=MapAugment(), residency="memory" if workers else "device", num_workers=workers, group="none",
    )  # fmt: skip
    data.setup()
    ready = time.perf_counter() - start
    rates = []
    stream = data.streams[0]
    loader = data.train_dataloader()
    count = max(6, min(len(loader), 16_000_000 // (batch * canvas * canvas)))
    for _ in range(TURNS):
        requests = iter(loader)
        data.draw(next(requests), stream)
        clock = time.perf_counter if workers else time.process_time
        start = clock()
        for _ in range(min(count, len(loader) - 1)):
            data.draw(next(requests), stream)
        rates.append(min(count, len(loader) - 1) * batch / (clock() - start))
    return {
        "rate": median(rates),
        "low": min(rates),
        "high": max(rates),
        "ready": ready,
        "memory": memory("VmHWM") - before,
    }


def main() -> None:
    if words := arguments():
        print(json.dumps(measure(words[0], *map(int, words[1:]))))
        return
    quick = "--quick" in sys.argv
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as cache:
        for axis, value in (
            (axis, value) for axis, values in POINTS.items() for value in values[: 2 if quick else None]
        ):
            point = DEFAULT | {axis: value}
            command = [sys.executable, __file__, cache, *map(str, point.values())]
            said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            found[axis, value] = got = json.loads(said)
            rate = f"{got['rate']:,.0f} ({got['low']:,.0f} to {got['high']:,.0f})"
            rows.append((f"{axis} {value:,}", rate, f"{got['ready']:.2f}", f"{got['memory']:,.0f}"))
            print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    others = ", ".join(f"{name} {value:,}" for name, value in DEFAULT.items())
    if "--write" in sys.argv:
        draw(found)
    publish(
        "scaling",
        f"Real wafers, the sample repeated where there are more. What a row does not name is as here: {others}. "
        f"Medians and spread of {TURNS} turns; per second of the CPU on one core, but of the clock over workers.",
        table(("what", "wafers/s", "opening and splitting, s", "memory, MB"), rows),
    )


def draw(found: dict[tuple[str, int], dict[str, float]]) -> None:
    """The figure: rate and memory over every axis."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(11, 5), sharey="row", layout="constrained")
    for column, (axis, values) in enumerate(POINTS.items()):
        points = [(value, found[axis, value]) for value in values if (axis, value) in found]
        for row, key in enumerate(("rate", "memory")):
            place = axes[row, column]
            place.plot([value for value, _ in points], [got[key] for _, got in points], "o-", color="#1f5a94")
            place.set_yscale("log")
            place.grid(alpha=0.3)
            if axis != "workers":
                place.set_xscale("log")
                place.minorticks_off()
            place.set_xticks([value for value, _ in points], [f"{value:,}" for value, _ in points], fontsize=8)
        axes[1, column].set_xlabel(axis)
    axes[0, 0].set_ylabel("wafers/s")
    axes[1, 0].set_ylabel("memory, MB")
    figure.savefig(FIGURE, dpi=110)


if __name__ == "__main__":
    main()
