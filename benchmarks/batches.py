"""Batches drawn by one gather against a per-sample dataset: python benchmarks/batches.py [STORE or LSWMD.pkl].

The per-sample side is what public projects do: clip, one-hot, float and nearest resize of one map in
`__getitem__`, rotation by k x 90 degrees and two flips, then the default collate. Both sides run in turn on the
same maps in one process, with as many threads as torch takes (set OMP_NUM_THREADS to change that).
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from wafer_lab.data.augment import MapAugment
from wafer_lab.data.canvas import encode
from wafer_lab.data.prepare import cached
from wafer_lab.data.readers import open_source
from wafer_lab.data.residency import gather
from wafer_lab.data.simulator import Simulator
from wafer_lab.data.store import Store

WAFERS, BATCH, ROUNDS = 4096, 128, 5


class PerSample(Dataset):
    """One map per call, as the public pipelines draw it."""

    def __init__(self, maps: list[np.ndarray], size: int):
        self.maps, self.size = maps, size

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, i: int) -> torch.Tensor:
        state = torch.from_numpy(np.clip(self.maps[i], 0, 2)).long()
        image = torch.nn.functional.one_hot(state, 3).permute(2, 0, 1).float()
        image = torch.nn.functional.interpolate(image[None], (self.size, self.size), mode="nearest")[0]
        image = torch.rot90(image, int(torch.randint(4, ())), (1, 2))
        for axis in (1, 2):
            if torch.rand(()) < 0.5:
                image = image.flip(axis)
        return image


def per_sample(maps: list[np.ndarray], size: int, workers: int) -> float:
    loader = DataLoader(PerSample(maps, size), BATCH, shuffle=True, num_workers=workers)
    return _seconds(lambda: sum(len(batch) for batch in loader))


def batched(store: Store, rows: np.ndarray, size: int) -> float:
    maps, augment = gather(store, rows), MapAugment()
    generator = torch.Generator().manual_seed(0)

    def epoch() -> None:
        for index in torch.randperm(len(rows)).split(BATCH):
            encode(augment.draw(maps, index, size, generator)[0], "one_hot")

    return _seconds(epoch)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    source = open_source(sys.argv[1]) if len(sys.argv) > 1 else Simulator(num_wafers=WAFERS)
    store = source if isinstance(source, Store) else cached(source, "outputs/cache")
    rows = np.sort(np.random.default_rng(0).permutation(len(store))[:WAFERS])
    maps = [np.array(store.map(i)) for i in rows]
    print(f"{store.header.name}, {len(rows):,} maps, batch {BATCH}, {torch.get_num_threads()} threads")
    print("canvas  workers  per sample, wafers/s  one gather, wafers/s  ratio (median of 5, spread)")
    for size in (64, 224):
        for workers in (0, 2):
            pairs = [(per_sample(maps, size, workers), batched(store, rows, size)) for _ in range(ROUNDS)]
            slow, fast = (median(side) for side in zip(*pairs, strict=True))
            ratios = sorted(a / b for a, b in pairs)
            rate = (len(rows) / slow, len(rows) / fast)
            print(
                f"{size:>6}  {workers:>7}  {rate[0]:>20,.0f}  {rate[1]:>20,.0f}  "
                f"{median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
            )


if __name__ == "__main__":
    main()
