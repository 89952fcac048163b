"""What a loader yields: whole batches of positions, each with the seed of its own augmentation.

Order and augmentation are functions of (seed, epoch, batch number) alone. A resumed run, another worker or
another process therefore draws exactly what an uninterrupted one would have drawn, without any saved state.

Where several processes train together, the batches are those of one process, and each serves its share of every batch.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from wafer_lab.errors import UserError
from wafer_lab.processes import WHOLE, Share


class Request(NamedTuple):
    """One batch to be drawn.

    Attributes:
        position: (B,) int64 positions in the datamodule's table of rows.
        seed: Seed for whatever is random in drawing this batch. A plain number: to read one from a GPU would wait for
            all work before it.
    """

    position: Tensor
    seed: int


class Batch(NamedTuple):
    """One batch as the task sees it, on the device of the model.

    Attributes:
        image: (B, C, S, S) float32, channels_last, in the range of the encoding; of V views (V * B, C, S, S), the
            first view of every wafer, then the second of every wafer, ...
        target: (B,) int64 classes, (B, L) float32 of 0/1, or masks (B, K, S, S) float32 of 0/1; negative where
            unlabelled.
        row: (B,) int64 rows of the source.
    """

    image: Tensor
    target: Tensor
    row: Tensor


def rows(batch: Batch | tuple[Batch, ...]) -> Tensor:
    """(n,) int64 rows of the source of all wafers in a batch, which may be of several streams."""
    return batch.row if isinstance(batch, Batch) else torch.cat([part.row for part in batch])


class EpochBatches(Sampler[Request]):
    """One process's share of the batches of one epoch.

    In training, every process serves the same number of positions of every batch. In validation every position is
    served once, by one process: their numbers differ by one at most, and nobody's batch is empty, so that all take
    part in the same number of exchanges.

    Args:
        first: First position of the part to draw from.
        count: Number of positions in the part.
        batch_size: Positions per batch, of all processes together.
        seed: Seed of the order; None keeps the order of the table (validation, test).
        weights: (count,) relative chance of each position to be drawn, with replacement; None draws each once.
        drop_last: Leave out a last batch that is smaller, unless it is the only one. Batch normalisation
            cannot train on a batch of one.
        resumed_at: (epoch, batches of it that are done), of a run that was stopped within an epoch.
        share: Which process this is, of how many.

    Raises:
        UserError: The batches or the part cannot be shared among so many processes.
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
        share: Share = WHOLE,
    ):
        if batch_size % share.of:
            raise UserError(
                f"data.batch_size={batch_size} is of all {share.of} processes together, and cannot be shared equally; "
                f"use {batch_size - batch_size % share.of or share.of}"
            )
        if count < share.of:
            raise UserError(
                f"a part of the split has {count} wafers for {share.of} processes; use fewer devices or a larger part"
            )
        self.first, self.count, self.batch_size = first, count, batch_size
        self.seed, self.weights, self.drop_last = seed, weights, drop_last
        self.share, self.resumed_at = share, resumed_at
        self.epoch = 0
        self._drawn: tuple[int, NDArray[np.int64]] | None = None  # the epoch and order that `at` was last asked for

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to draw; the trainer calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches."""
        if self.drop_last:
            return max(1, self.count // self.batch_size)
        return min(-(-self.count // self.batch_size), self.count // self.share.of)

    def __iter__(self) -> Iterator[Request]:
        """The epoch's batches, in order; of one that was stopped within, those that are left."""
        order = self._order()
        epoch, done = self.resumed_at
        start = done if self.epoch == epoch else 0
        judged = None if self.drop_last else list(self._judged(order))
        for number in range(start, len(self)):
            yield self._request(self._trained(order, number) if judged is None else judged[number], number)

    def at(self, number: int) -> Request:
        """Training batch `number`, counted from the first of the first epoch."""
        self.epoch, number = divmod(number, len(self))
        if self._drawn is None or self._drawn[0] != self.epoch:
            self._drawn = self.epoch, self._order()
        return self._request(self._trained(self._drawn[1], number), number)

    def _request(self, chosen: NDArray[np.int64], number: int) -> Request:
        """Ask for the positions chosen within the part, which are batch `number` of the epoch."""
        seed = np.random.SeedSequence((self.seed or 0, self.epoch, number)).generate_state(1)
        return Request(torch.from_numpy(chosen + self.first), int(seed[0]))

    def _trained(self, order: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        """This process's equal share of a batch."""
        batch = order[number * self.batch_size : (number + 1) * self.batch_size]
        return batch[: len(batch) // self.share.of * self.share.of][self.share.places]

    def _judged(self, order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Every position once; as many batches for one process as for another, none empty."""
        own = order[self.share.places]
        if self.share.of > 1:
            yield from np.array_split(own, len(self))
            return
        for number in range(len(self)):
            yield own[number * self.batch_size : (number + 1) * self.batch_size]

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
