"""Memory and speed of the three places where wafer maps may lie: python benchmarks/residency.py [WAFERS or STORE].

One epoch of training batches on the CPU, each place in a process of its own. "Own memory" is what nobody else can use
(RssAnon of Linux) at its highest, above that before the data were opened; pages of the store's file (RssFile) are the
system's cache, which it takes back when memory is short. The split is made from labels alone in all three.
"""

import subprocess
import sys
import time
from pathlib import Path

CACHE, BATCH, CANVAS = "outputs/cache", 128, 64
KINDS = ("device", "memory", "mapped")


def resident(name: str) -> float:
    """RssAnon or RssFile of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1e3


def measure(kind: str, what: str) -> None:
    """Draw one epoch and print a row of the table."""
    from wafer_lab.data.augment import MapAugment
    from wafer_lab.data.maps import MapDataModule
    from wafer_lab.data.readers import open_source
    from wafer_lab.data.simulator import Simulator
    from wafer_lab.data.streams import LABELLED

    source = Simulator(num_wafers=int(what)) if what.isdigit() else open_source(what)
    before = resident("RssAnon"), resident("RssFile")
    facts = {"target": "multiclass", "num_classes": 9, "in_channels": 3, "canvas": CANVAS, "batch_size": BATCH}
    data = MapDataModule(source=source, cache=CACHE, residency=kind, augment=MapAugment(), **facts)
    data.setup()
    start, highest, pages = time.perf_counter(), resident("RssAnon"), resident("RssFile")
    for batch in data.train_dataloader():
        data.draw(batch, LABELLED[0])
        highest, pages = max(highest, resident("RssAnon")), max(pages, resident("RssFile"))
    rate = len(data.split.train) / (time.perf_counter() - start)
    cells = (data.store.height.astype(int) * data.store.width)[data.rows].sum() / 1e6
    sizes = (cells, highest - before[0], pages - before[1])
    print(f"{kind:>8}  {len(data.store):>9,}  {sizes[0]:>9,.0f}  {sizes[1]:>13,.0f}  {sizes[2]:>13,.0f}  {rate:>8,.0f}")


def main() -> None:
    what = sys.argv[1] if len(sys.argv) > 1 else "100000"
    if len(sys.argv) > 2:
        measure(sys.argv[2], what)
        return
    print("   place     wafers  cells, MB  own memory, MB  file pages, MB  wafers/s", flush=True)
    for kind in KINDS:
        subprocess.run([sys.executable, __file__, what, kind], check=True)


if __name__ == "__main__":
    main()
