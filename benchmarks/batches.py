"""Batches drawn by gathers against the per-sample pipeline of earlier systems: python benchmarks/batches.py [WAFERS].

The per-sample side is what they do: clip, one-hot, float and nearest resize of one map in `__getitem__`, a rotation by
k x 90 degrees and two flips, the default collate, and a DataLoader with workers. Both sides run in turn on the same
real maps (WAFER_LAB_REAL_DATA), on one core and on all. Beside them a plain copy of one batch, which no pipeline can
beat by much: it shows how far from the memory's bandwidth the batch path is.
"""

from functools import partial
from statistics import median

import numpy as np
import torch
from measuring import Sample, arguments, publish, ratio, table, turns
from torch.utils.data import DataLoader, Dataset

from wafer_lab.data.augment import MapAugment
from wafer_lab.data.canvas import Maps, encode
from wafer_lab.data.prepare import cached
from wafer_lab.data.residency import gather

BATCH, ROUNDS = 128, 5


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


def per_sample(loader: DataLoader) -> None:
    for _ in loader:
        pass


def batched(maps: Maps, size: int) -> None:
    augment, generator = MapAugment(), torch.Generator().manual_seed(0)
    for index in torch.randperm(len(maps.height)).split(BATCH):
        encode(augment.draw(maps, index, size, generator)[0], "one_hot")


def copied(batches: int, source: torch.Tensor, target: torch.Tensor) -> None:
    for _ in range(batches):
        target.copy_(source)


def main() -> None:
    wafers = int((arguments() or [2048])[0])
    sample, rows = Sample(), []
    chosen = np.sort(np.random.default_rng(0).permutation(sample.count)[:wafers])
    every = sample.maps()
    maps = [every[i] for i in chosen]
    ragged = gather(cached(sample, "outputs/cache"), chosen)
    cores = torch.get_num_threads()
    for threads in dict.fromkeys((1, cores)):
        torch.set_num_threads(threads)
        for size in (64, 224):
            workers = 0 if threads == 1 else threads
            loader = DataLoader(
                PerSample(maps, size), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
            )
            found = turns(
                {
                    "per sample": partial(per_sample, loader),
                    "batch path": partial(batched, ragged, size),
                    "copy": partial(copied, -(-wafers // BATCH), *torch.ones(2, BATCH, size, size, 3)),
                },
                ROUNDS,
            )
            # On one core the CPU's seconds count: whoever else is on the machine does not show in them.
            clock = 1 if threads == 1 else 0
            slow, fast, bare = ([turn[clock] for turn in found[side]] for side in found)
            rates = (f"{wafers / median(side):,.0f}" for side in (slow, fast, bare))
            rows.append((threads, size, workers, *rates, ratio(slow, fast), ratio(fast, bare)))
    head = (
        "cores", "canvas", "workers", "per sample, wafers/s", "batch path, wafers/s", "plain copy, wafers/s",
        "per sample / batch path, time", "batch path / copy, time",
    )  # fmt: skip
    words = f"{wafers:,} real maps, batches of {BATCH} in float32, medians and spread of {ROUNDS} turns; on one core "
    publish("batches", words + "seconds are the CPU's, on several the clock's.", table(head, rows))


if __name__ == "__main__":
    main()
