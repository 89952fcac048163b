"""What the benchmarks of docs/performance.md share: turns, tables, the machine, real maps, and the page itself.

Both sides of a claim run in turn, so that what else the machine does meets both alike. `--write` puts a script's table
into docs/performance.md, between its two marks.
"""

import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "performance.md"
FULL = 811_457  # rows of the published LSWMD.pkl
Measure = tuple[float, float]  # seconds of the clock, seconds of the CPUs (this process's)


def turns(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Measure]]:
    """Run every side once per round, in the order given and then reversed, after a round that does not count."""
    found: dict[str, list[Measure]] = {name: [] for name in sides}
    for number in range(-1, rounds):
        for name in sides if number % 2 else reversed(sides):
            start = time.perf_counter(), time.process_time()
            sides[name]()
            if number >= 0:
                found[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return found


def ratio(over: Sequence[float], under: Sequence[float], digits: int = 1) -> str:
    """Median and spread of the ratio, turn by turn."""
    values = sorted(a / b for a, b in zip(over, under, strict=True))
    low, middle, high = (f"{value:.{digits}f}" for value in (values[0], median(values), values[-1]))
    return f"{middle} ({low} to {high})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def machine() -> str:
    """One line: what the numbers were measured on, when, and how busy it was."""
    import torch

    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = found[1] if found else platform.processor()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    when = f"{time.strftime('%Y-%m-%d')}, load {os.getloadavg()[0]:.1f}"
    return f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB; {versions}; {when}"


def publish(name: str, *parts: str) -> None:
    """Print a section; with --write on the command line also put it into the page, in place of the one before."""
    text = "\n\n".join([*parts, f"*{machine()}*"])
    print(text, flush=True)
    if "--write" not in sys.argv:
        return
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, mark, rest = PAGE.read_text().partition(start)
    if not mark or end not in rest:
        raise SystemExit(f"{PAGE} has no marks for {name}")
    PAGE.write_text(before + start + "\n" + text + "\n\n" + end + rest.partition(end)[2])


def arguments() -> list[str]:
    """The command line without options."""
    return [word for word in sys.argv[1:] if not word.startswith("--")]


class Sample:
    """The sample of real WM-811K wafers in the folder that WAFER_LAB_REAL_DATA names, as a source of `rows` wafers.

    Args:
        rows: How many; beyond the sample's own number it starts again.
    """

    name, kind, target = "wm811k", "maps", "multiclass"

    def __init__(self, rows: int | None = None):
        with np.load(Path(os.environ["WAFER_LAB_REAL_DATA"]) / "wm811k_sample.npz") as file:
            self.cells, self.shape, self.label = file["cells"], file["shape"].astype(np.int32), file["label"]
            self.class_names = tuple(str(name) for name in file["class_names"])
        self.count = rows or len(self.label)
        self.end = np.cumsum(self.shape.astype(np.int64).prod(1))

    def fingerprint(self) -> str:
        """Of how many there are."""
        return f"{self.count:016x}"

    def notes(self) -> dict[str, int | str]:
        """None."""
        return {}

    def rows(self) -> Iterator[object]:
        """In runs of the sample, in its order."""
        from wafer_lab.data.rows import Rows

        for first in range(0, self.count, len(self.label)):
            n = min(len(self.label), self.count - first)
            height, width = np.ascontiguousarray(self.shape[:n].T)
            yield Rows(self.label[:n].astype(np.int16), height, width, self.cells[: self.end[n - 1]])

    def maps(self) -> list[np.ndarray]:
        """The maps, (H, W) uint8 each."""
        return [
            self.cells[end - h * w : end].reshape(h, w)
            for end, (h, w) in zip(self.end[: self.count].tolist(), self.shape.tolist(), strict=False)
        ]
