"""What every datamodule shares: the store, the frozen split, the label counts and the loaders."""

import copy
import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, get_args

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wafer_lab.data.batches import Batch, EpochBatches, Request, Requests
from wafer_lab.data.labelled import Labelled, labelled_only, read_labelled
from wafer_lab.data.masks import image_labels, mask_classes
from wafer_lab.data.near_duplicates import near_duplicate_groups
from wafer_lab.data.prepare import cached
from wafer_lab.data.readers import open_source
from wafer_lab.data.rows import Target
from wafer_lab.data.split import Method, Split, leave_out, limited, split, strata, subset, without_judged
from wafer_lab.data.store import Source, Store
from wafer_lab.data.streams import LABELLED, JointBatches, SideBySide, Stream
from wafer_lab.data.train_subsets import scarce, without_fold
from wafer_lab.data.views import TTA, VIEWS
from wafer_lab.errors import UserError
from wafer_lab.processes import WHOLE, Share

PARTS = ("train", "val", "test")
Group = Literal["exact", "near_duplicates", "none"]


class WaferDataModule(pl.LightningDataModule):
    """A data set in its store, split by rows, served as batches.

    Args:
        path: File or folder of the data, as `wafer_lab.data.readers.open_source` takes it. It is prepared into
            `cache` on first use; a prepared store is used as it is.
        source: A source in place of a path, such as the simulator.
        cache: Folder of prepared stores.
        target: What is learnt: classes (`multiclass`) or labels (`multilabel`), checked against the source, or a `mask`
            per pattern of wafer maps of either kind.
        num_classes: Number of classes or labels; checked against the source.
        in_channels: Channels of the images served.
        canvas: Side of the square images served, in pixels.
        batch_size: Wafers per batch, of all processes that train together.
        split: Splitting method, see `wafer_lab.data.split.split`.
        val: Fraction for validation.
        test: Fraction for testing.
        group: What never stands on two sides of a split: `exact` copies, or `near_duplicates` with them, see
            `wafer_lab.data.near_duplicates`. `none` lets copies leak; it is there to measure what that feigns.
        seed: The data seed: it alone decides the split, the label fraction and the limit.
        fold: Test fold of a kfold split.
        folds: Number of folds of a kfold split.
        label_fraction: Fraction of every class's training labels to keep, at least one each; the others become
            unlabelled rows.
        train_without: Which of `folds` equal parts of the training labels to leave out, so that models of an ensemble
            differ in what they saw and are still selected and judged on the same wafers; None keeps all.
        labelled: CSV file of the training wafers to use, with labels where they are not the source's own; the others
            become unlabelled rows. See `wafer_lab.data.labelled.read_labelled`. None uses all.
        limit: Use at most this many labelled wafers, at least 3, in the proportions of classes and parts; None uses
            all.
        leave_out: Names of classes whose wafers stand in no part but a fourth one, `unknown`; of multi-label data, all
            wafers with such a label. The classes keep their names and logits.
        run_seed: The run's seed: order and augmentation of the training batches.
        views: Under which symmetries the trained network is asked about val and test wafers: `none`, `hflip`, `d2` or
            `d4`. What the predictions table holds can be averaged afterwards, without the network.
        num_workers: Worker processes that augment images or draw maps that do not lie where the model is.
        external: File or folder of other data to test on beside the test part; None for none.
        external_classes: What its classes are called here, by its own names; None leaves a class out. See
            `wafer_lab.data.external.open_external`.

    Raises:
        UserError: The source does not match `target` or `num_classes`, or a fraction is out of range.
    """

    kind = "maps"
    scarce = ""  # a warning where the label fraction is below one wafer of a class

    def __init__(
        self,
        *,
        path: str | None = None,
        source: Source | Store | None = None,
        cache: str,
        target: str,
        num_classes: int,
        in_channels: int,
        canvas: int = 64,
        batch_size: int = 128,
        split: Method = "stratified",
        val: float = 0.1,
        test: float = 0.2,
        group: Group = "exact",
        seed: int = 0,
        fold: int = 0,
        folds: int = 5,
        label_fraction: float = 1.0,
        train_without: int | None = None,
        labelled: str | None = None,
        limit: int | None = None,
        leave_out: Sequence[str] = (),
        run_seed: int = 0,
        views: TTA = "none",
        num_workers: int = 0,
        external: str | None = None,
        external_classes: Mapping[str, str | None] | None = None,
    ):
        super().__init__()
        if not 0 < label_fraction <= 1:
            raise UserError(f"data.label_fraction={label_fraction} must lie in (0, 1]")
        if min(canvas, batch_size) < 1:
            raise UserError("data.canvas and data.batch_size must be positive")
        parts = 4 if leave_out else 3
        if limit is not None and limit < parts:
            raise UserError(f"data.limit={limit} leaves a part of the split empty; it must be at least {parts}")
        if external_classes and external is None:
            raise UserError("data.external_classes renames classes of data.external, which is not set; name its folder")
        self.external, self.external_classes = external, external_classes
        if source is None:
            if path is None:
                raise UserError("no data is named; set data.path to its file or folder")
            source = open_source(path)
        self.source, self.cache = source, cache
        self.target, self.num_classes, self.in_channels = target, num_classes, in_channels
        self.canvas, self.batch_size, self.num_workers = canvas, batch_size, num_workers
        self.split_options: dict[str, Any] = {
            "method": split, "val": val, "test": test, "seed": seed, "fold": fold, "folds": folds
        }  # fmt: skip
        self.seed, self.label_fraction, self.limit, self.run_seed = seed, label_fraction, limit, run_seed
        self.leave_out, self.labelled_file, self.train_without = tuple(leave_out), labelled, train_without
        self.group, self.views = _one_of("group", group, get_args(Group)), VIEWS[_one_of("views", views, VIEWS)]
        self.sample_weights: NDArray[np.float64] | None = None
        #: What the training batches hold; a task that wants other than labelled wafers says so before `setup`.
        self.streams: tuple[Stream, ...] = LABELLED
        self.resumed_at = (0, 0)  # as in EpochBatches, of the training batches
        self._truth: Tensor | None = None
        self._ready = False

    def setup(self, stage: str | None = None) -> None:
        """Open (or first prepare) the store, split it, and load what the batches need."""
        if not self._ready:
            self.open_and_split()
            self._serve()
            self._ready = True

    def open_and_split(self) -> None:
        """Open (or first prepare) the store and split it: all that it takes to know which rows a run uses."""
        if hasattr(self, "split"):
            return
        self.store = self.source if isinstance(self.source, Store) else cached(self.source, self.cache)
        self._check()
        self.label = self.row_labels()
        self._alike = self._kept_together()
        self.split = self._split()
        #: Hash of the data and of the rows that select and judge a run; equal for runs that may be compared.
        self.split_digest = self.split.digest(self.fingerprint)

    def over(self, store: Store, rows: NDArray[np.int64]) -> Self:
        """The same kind of batches of some rows of another store, which are the part `test`.

        Args:
            store: Of the classes of this data module.
            rows: (n,) int64 rows with a label.

        Returns:
            A data module that is set up; its target is whole wafers' labels, also where this one's is masks.
        """
        other, none = copy.copy(self), np.empty(0, dtype=np.int64)
        other.source = other.store = store
        other.target, other.label = self.label_kind, store.label
        other.split = Split(train=none, val=none, test=rows, unlabelled=none)
        other.split_digest = other.split.digest(other.fingerprint)
        other._serve()
        other._ready = True
        return other

    def _serve(self) -> None:
        """Lay the rows of the split end to end and load what batches are drawn from."""
        # Unlabelled wafers come first, so that they and the labelled ones of the training side are one stretch.
        wanted = any(stream.part != "train" for stream in self.streams)
        parts = (*(["unlabelled"] if wanted else []), *PARTS, "unknown")
        rows: list[NDArray[np.int64]] = [getattr(self.split, part) for part in parts]
        self.rows = np.concatenate(rows)
        ends = np.cumsum([len(part) for part in rows])
        self.first = dict(zip(parts, ends - [len(part) for part in rows], strict=True))
        self._targets = torch.from_numpy(np.ascontiguousarray(self.label[self.rows]))
        self._targets = self._targets.long() if self.target == "multiclass" else self._targets.float()
        self._targets[: self.first["train"]] = -1  # of unlabelled wafers, whatever the data know of them
        self._index = torch.from_numpy(self.rows)
        self.load()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes or labels, in the order of the logits."""
        return mask_classes(self.store) if self.target == "mask" else self.store.header.class_names

    @property
    def label_kind(self) -> Target:
        """Kind of the labels of whole wafers: the target, or `multilabel` where that is a mask per pattern."""
        return "multiclass" if self.target == "multiclass" else "multilabel"

    @property
    def fingerprint(self) -> str:
        """Identifies the data, content and labels, wherever and however old its files are."""
        return self.store.header.digest

    def labels(self, part: str) -> NDArray[np.integer]:
        """(n,) class indices or (n, C) of 0/1 of one part of the split; of masks, which patterns a wafer has."""
        rows: NDArray[np.int64] = getattr(self.split, part)
        return np.asarray(self.label[rows])

    def row_labels(self) -> NDArray[np.integer]:
        """What `labels` says of every row of the store; negative where unlabelled."""
        return image_labels(self.store) if self.target == "mask" else self.store.label

    @property
    def share(self) -> Share:
        """This process's part of every batch that the loaders serve."""
        return WHOLE if self.trainer is None else Share(self.trainer.global_rank, self.trainer.world_size)

    def load(self) -> None:
        """Bring the rows of the split to where batches are drawn from."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled or weighted batches, augmented; of several streams a tuple each."""
        samplers = [self._shuffled(number, stream) for number, stream in enumerate(self.streams)]
        answers = [self.requests(stream) for stream in self.streams]
        if len(samplers) == 1:
            return self._loader(samplers[0], answers[0])
        dataset = answers[0] if isinstance(answers[0], Requests) else SideBySide(answers)
        return self._loader(JointBatches(samplers, self.resumed_at), dataset)

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation rows in order."""
        return self._loader(self._in_order("val"), self.requests())

    def test_dataloader(self) -> DataLoader[Any]:
        """The test rows in order."""
        return self._loader(self._in_order("test"), self.requests())

    def _shuffled(self, number: int, stream: Stream) -> EpochBatches:
        """The training batches of one stream, in an order of its own."""
        sizes = {part: len(getattr(self.split, part)) for part in ("unlabelled", "train")}
        first = self.first["train" if stream.part == "train" else "unlabelled"]
        own = np.random.SeedSequence((self.run_seed, number)).generate_state(1)
        return EpochBatches(
            first,
            sizes.get(stream.part, sum(sizes.values())),
            self.batch_size * stream.ratio,
            seed=self.run_seed if number == 0 else int(own[0]),
            weights=self.sample_weights if stream.part == "train" else None,
            drop_last=True,
            resumed_at=self.resumed_at,
            share=self.share,
        )

    def _in_order(self, part: str) -> EpochBatches:
        return EpochBatches(self.first[part], len(getattr(self.split, part)), self.batch_size, share=self.share)

    def batches(self, part: str, device: torch.device) -> Iterator[Batch]:
        """All wafers of a part, in order and never augmented, as batches on a device; for use without a trainer."""
        for request in EpochBatches(self.first[part], len(getattr(self.split, part)), self.batch_size):
            yield self.draw(Request(request.position.to(device), request.seed))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn what the loader sent into a batch, of several streams a tuple, on the device that it has reached."""
        if self.trainer is None or not self.trainer.training:
            return self.draw(batch)
        if len(self.streams) == 1:
            return self.draw(batch, self.streams[0])
        return tuple(self.draw(one, stream) for one, stream in zip(batch, self.streams, strict=True))

    def draw(self, batch: Any, stream: Stream | None = None) -> Batch:
        """Make the batch that a request asks for.

        Args:
            batch: A `Request`, or what `requests` made of one.
            stream: In training, whose views to draw; None draws every wafer once, as it is.

        Returns:
            The batch, on the device of the request.
        """
        raise NotImplementedError

    def requests(self, stream: Stream | None = None) -> Dataset[Any]:
        """What answers a sampler's requests, as for `draw`; by default they pass through to the device."""
        return Requests()

    def labelled(self, image: Tensor, position: Tensor) -> Batch:
        """Put targets and source rows beside images; both tables live on the device."""
        if self._targets.device != position.device:
            self._targets, self._index = self._targets.to(position.device), self._index.to(position.device)
        return Batch(image, self._targets[position], self._index[position])

    def hidden_labels(self, batch: Batch) -> Tensor:
        """What the data know of wafers whose labels were hidden, like `Batch.target`; to watch training by."""
        if self._truth is None or self._truth.device != batch.row.device:
            self._truth = torch.from_numpy(self.label.copy()).to(batch.row.device)
        return self._truth[batch.row]

    def _loader(self, sampler: EpochBatches | JointBatches, dataset: Dataset[Any]) -> DataLoader[Any]:
        workers = 0 if isinstance(dataset, Requests) else self.num_workers
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available() and not isinstance(dataset, Requests),
        )

    def _check(self) -> None:
        header = self.store.header
        if header.kind != self.kind:
            wanted = {"maps": "data=wm811k or data=mixedwm38", "images": "data=sem"}[header.kind]
            raise UserError(f"{header.name} holds {header.kind}, not {self.kind}; choose {wanted}")
        if self.target == "mask" and self.kind == "images":
            raise UserError("data.target=mask is for wafer maps; images have no masks here, use data.target=multiclass")
        if header.target != self.target != "mask":
            named = header.name in ("wm811k", "mixedwm38")
            choice = f"this file is {header.name}; choose data={header.name}" if named else ""
            raise UserError(choice or f"{header.name} has {header.target} labels; set data.target={header.target}")
        names = self.class_names
        if self.target == "multiclass" and len(names) < 2:
            raise UserError(
                f"{header.name} has one class, {', '.join(names)}, and nothing to tell it from; name a folder with one "
                "folder per class"
            )
        if len(names) != self.num_classes:
            what = "masks" if self.target == "mask" else "classes"
            raise UserError(
                f"{header.name} has {len(names)} {what} ({', '.join(names)}); set data.num_classes={len(names)}"
            )

    def _kept_together(self) -> NDArray[np.uint64]:
        """(N,) equal for rows that never stand on two sides of a split."""
        if self.group == "near_duplicates":
            return near_duplicate_groups(self.store, self.cache, self.label).astype(np.uint64)
        return np.arange(len(self.store), dtype=np.uint64) if self.group == "none" else self.store.content

    def _split(self) -> Split:
        store, content = self.store, self._alike
        whole = split(self.label, content, lot=store.lot, vendor=store.vendor_split, **self.split_options)
        whole = without_judged(whole, content, self._lots)
        if self.leave_out:
            whole = leave_out(whole, self._left_out(), content)
        if self.limit is not None:
            whole = limited(whole, strata(self.label), self.limit, self.seed)
        if self.labelled_file is not None:
            if self.label_fraction != 1:
                raise UserError("data.labelled and data.label_fraction both choose training wafers; set only one")
            found = read_labelled(self.labelled_file, self.class_names, self.target, len(store))
            whole, self.label = labelled_only(whole, self.label, found, content, self._lots)
        if self.label_fraction < 1:
            self.scarce = scarce(self.label[whole.train], self.class_names, self.label_fraction)
            kept, hidden = subset(whole.train, strata(self.label[whole.train]), self.label_fraction, self.seed)
            whole = replace(whole, train=kept, unlabelled=np.union1d(whole.unlabelled, hidden))
        if self.train_without is None:
            return whole
        folds, fold = self.split_options["folds"], self.train_without
        return without_fold(whole, strata(self.label), content, folds, fold, self.seed)

    @property
    def _lots(self) -> NDArray[np.str_] | None:
        """(N,) lot names, where no lot may stand on two sides."""
        return self.store.lot if self.split_options["method"] == "lot" else None

    def relabel(self, found: Labelled) -> None:
        """Train on the rows that it names, under its labels; before `setup`. See `labelled.labelled_only`."""
        self.split, self.label = labelled_only(self.split, self.label, found, self._alike, self._lots)

    def _left_out(self) -> NDArray[np.bool_]:
        """(N,) bool, True for the rows of the store that are of a class to leave out."""
        for name in self.leave_out:
            if name not in self.class_names:
                close = difflib.get_close_matches(name, self.class_names, n=1, cutoff=0.5)
                hint = f"did you mean {close[0]}?" if close else f"choose among {', '.join(self.class_names)}"
                raise UserError(f"data.leave_out: there is no class {name}; {hint}")
        out = [self.class_names.index(name) for name in self.leave_out]
        label = self.label
        return np.asarray(np.isin(label, out) if label.ndim == 1 else (label[:, out] == 1).any(axis=1))


def _one_of(key: str, value: Any, choices: Collection[str]) -> Any:
    """The value of a setting that has names to choose from."""
    if value not in choices:
        raise UserError(f"unknown data.{key} '{value}'; choose one of {', '.join(choices)}")
    return value
