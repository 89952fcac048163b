"""Memory of a long stream: python benchmarks/stream.py MODEL.onnx STORE [WAFERS].

A prepared store, repeated until there are WAFERS of it, is labelled into a Parquet file, and the memory of the process
is told every ten thousand wafers. Memory-mapped pages of the store count, though the system may take them back.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from wafer_lab.data.prepare import cached
from wafer_lab.data.readers import open_source
from wafer_lab.data.rows import Rows
from wafer_lab.data.store import Store
from wafer_lab.export.predictor import WaferModel
from wafer_lab.workflows.labelling import label_source


class Repeated:
    """Rows of a store over and over."""

    name, kind, target, class_names = "repeated", "maps", "multiclass", ()

    def __init__(self, store, count: int):
        self.store, self.count = store, count

    def rows(self) -> Iterator[Rows]:
        """Batches until there are enough."""
        left = self.count
        while left:
            for rows in self.store.rows():
                taken = min(left, len(rows))
                label, height, width = rows.label[:taken], rows.height[:taken], rows.width[:taken]
                yield replace(rows, label=label, height=height, width=width)
                left -= taken
                if not left:
                    return


def main() -> None:
    model, path = WaferModel(sys.argv[1]), sys.argv[2]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 811_457
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(path)
        store = source if isinstance(source, Store) else cached(source, Path(folder) / "cache")
        start, done = time.perf_counter(), 0

        def told(more: int) -> None:
            nonlocal done
            if (done + more) // 10_000 > done // 10_000:
                print(f"{done + more:,} wafers, {resident():.0f} MB, {time.perf_counter() - start:.0f} s", flush=True)
            done += more

        labelled = label_source(model, Repeated(store, count), Path(folder) / "out.parquet", told)
        seconds = time.perf_counter() - start
        print(f"{labelled.wafers:,} wafers in {seconds:.0f} s, {labelled.wafers / seconds:,.0f} a second")


def resident() -> float:
    """Megabytes of the process that are in memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1e3


if __name__ == "__main__":
    main()
