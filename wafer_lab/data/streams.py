"""What a task wants its training batches to hold: of which wafers, how many, and under which views.

Supervised tasks take one stream, labelled wafers under the data's own augmentation. Self-supervised and semi-supervised
ones take several views, and streams of unlabelled wafers beside the labelled ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch.utils.data import Dataset, Sampler

from wafer_lab.data.augment import MapAugment
from wafer_lab.data.batches import EpochBatches, Request


@dataclass(frozen=True)
class Stream:
    """Wafers that every training batch holds.

    Attributes:
        part: `train`, the labelled wafers of the training side; `unlabelled`, its others; `all`, both.
        views: How each wafer is distorted, once per view; None stands for the data's own augmentation.
        ratio: Wafers of it in a batch, in units of `data.batch_size`.
    """

    part: Literal["train", "unlabelled", "all"] = "train"
    views: tuple[MapAugment | None, ...] = (None,)
    ratio: int = 1


#: What supervised tasks take.
LABELLED = (Stream(),)


class JointBatches(Sampler[tuple[Request, ...]]):
    """Batches of several streams side by side.

    An epoch is one pass over the stream that has the most batches; the others start over in a new order whenever they
    run out. As of one stream, what a batch holds is a function of seed, epoch and number alone.

    Args:
        streams: The batches of each stream.
        resumed_at: As of `EpochBatches`.
    """

    def __init__(self, streams: Sequence[EpochBatches], resumed_at: tuple[int, int] = (0, 0)):
        self.streams, self.resumed_at = tuple(streams), resumed_at
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to draw; the trainer calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches."""
        return max(len(stream) for stream in self.streams)

    def __iter__(self) -> Iterator[tuple[Request, ...]]:
        """The epoch's batches, in order; of one that was stopped within, those that are left."""
        epoch, done = self.resumed_at
        for number in range(done if self.epoch == epoch else 0, len(self)):
            yield tuple(stream.at(self.epoch * len(self) + number) for stream in self.streams)


class SideBySide(Dataset[tuple[object, ...]]):
    """Answers the requests of several streams, each from its own data set."""

    def __init__(self, datasets: Sequence[Dataset[object]]):
        self.datasets = tuple(datasets)

    def __getitem__(self, requests: tuple[Request, ...]) -> tuple[object, ...]:
        """One answer per stream."""
        return tuple(data[request] for data, request in zip(self.datasets, requests, strict=True))
