"""What a loader yields: whole batches of positions, each with the seed of its own augmentation.

Order and augmentation are functions of (seed, epoch, batch number) alone. A resumed run, another worker or
another process therefore draws exactly what an uninterrupted one would have drawn, without any saved state.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler


class Request(NamedTuple):
    """One batch to be drawn.

    Attributes:
        position: (B,) int64 positions in the datamodule's table of rows.
        seed: Seed for whatever is random in drawing this batch.
    """

    position: Tensor
    seed: Tensor


class Batch(NamedTuple):
    """One batch as the task sees it, on the device of the model.

    Attributes:
        image: (B, C, S, S) float32 in [0, 1], channels_last.
        target: (B,) int64 classes, (B, L) float32 of 0/1, or masks (B, K, S, S) float32 of 0/1; negative where
            unlabelled.
        row: (B,) int64 rows of the source.
    """

    image: Tensor
    target: Tensor
    row: Tensor


class EpochBatches(Sampler[Request]):
    """Batches of one epoch.

    Args:
        first: First position of the part to draw from.
        count: Number of positions in the part.
        batch_size: Positions per batch.
        seed: Seed of the order; None keeps the order of the table (validation, test).
        weights: (count,) relative chance of each position to be drawn, with replacement; None draws each once.
        drop_last: Leave out a last batch that is smaller, unless it is the only one. Batch normalisation
            cannot train on a batch of one.
        resumed_at: (epoch, batches of it that are done), of a run that was stopped within an epoch.
    """

    def __init__(
        self,
        first: int,
        count: int,
        batch_size: int,
        *,
        seed: int | None = None,
        weights: NDArray[np.float64] | None = None,
        drop_last: bool = False,
        resumed_at: tuple[int, int] = (0, 0),
    ):
        self.first, self.count, self.batch_size = first, count, batch_size
        self.seed, self.weights, self.drop_last = seed, weights, drop_last
        self.resumed_at, self.epoch = resumed_at, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to draw; the trainer calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches."""
        if self.drop_last:
            return max(1, self.count // self.batch_size)
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[Request]:
        """The epoch's batches, in order; of one that was stopped within, those that are left."""
        order = self._order()
        epoch, done = self.resumed_at
        for number in range(done if self.epoch == epoch else 0, len(self)):
            chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
            seed = np.random.SeedSequence((self.seed or 0, self.epoch, number)).generate_state(1)
            yield Request(torch.from_numpy(chosen + self.first), torch.from_numpy(seed.astype(np.int64)))

    def _order(self) -> NDArray[np.int64]:
        if self.seed is None:
            return np.arange(self.count)
        generator = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            return generator.permutation(self.count)
        chance = self.weights / self.weights.sum()
        return generator.choice(self.count, self.count, p=chance)


class Requests(Dataset[Request]):
    """Hands the sampler's requests through: maps are drawn on the device, after the transfer."""

    def __getitem__(self, request: Request) -> Request:
        """The request itself."""
        return request
