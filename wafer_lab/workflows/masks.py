"""The masks of a trained network: counted while it predicts a split, judged, and shown."""

from collections import defaultdict
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wafer_lab.data.batches import Batch, Request
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.maps import MapDataModule
from wafer_lab.evaluation.drawings import MASK_SHEET
from wafer_lab.evaluation.judgement import Judgement
from wafer_lab.evaluation.masks import FILE, Masks, judge_masks
from wafer_lab.metrics.collection import mask_counts

if TYPE_CHECKING:
    from wafer_lab.evaluation.figures import MaskExample


def called(logits: Tensor) -> Tensor:
    """Where a mask is predicted: bool, like the logits. A probability of 0.5 or more."""
    return logits >= 0


class MaskCounter:
    """Counts pixels while `predict_split` predicts, of the wafers as they are.

    Args:
        datamodule: Set up, of masks.
    """

    def __init__(self, datamodule: MapDataModule):
        self.datamodule = datamodule
        self._counts: dict[str, list[NDArray[np.int32]]] = defaultdict(list)
        self._index: dict[str, list[NDArray[np.int64]]] = defaultdict(list)

    def __call__(self, part: str, batch: Batch, output: Tensor) -> None:
        """Count a batch: `output` is (B, K, S, S) logits, the target 1, 0, or -1 where nobody knows."""
        counts = mask_counts(called(output), batch.target)
        self._counts[part].append(counts.int().cpu().numpy())
        self._index[part].append(batch.row.cpu().numpy())

    def table(self) -> Masks:
        """All that was counted, in the order it was."""
        source = self.datamodule
        index = np.concatenate([rows for parts in self._index.values() for rows in parts])
        counts = np.concatenate([counted for parts in self._counts.values() for counted in parts], axis=1)
        lot = source.store.lot
        return Masks(
            index=index,
            split=np.concatenate([np.full(sum(map(len, rows)), part) for part, rows in self._index.items()]),
            intersection=counts[0],
            predicted=counts[1],
            true=counts[2],
            class_names=source.class_names,
            canvas=source.canvas,
            truth=str(source.masks),
            split_digest=source.split_digest,
            data_fingerprint=source.fingerprint,
            lot=None if lot is None else np.asarray(lot[index]),
        )


def mask_counter(datamodule: WaferDataModule) -> MaskCounter | None:
    """What counts the masks of a data module; None where its targets are none."""
    return MaskCounter(datamodule) if isinstance(datamodule, MapDataModule) and datamodule.target == "mask" else None


def judge_counted(
    judgement: Judgement, counter: MaskCounter | None, network: nn.Module, run_dir: Path, draw: bool
) -> Judgement:
    """Add what was counted to what is known of a run; write masks.parquet and the sheet of test wafers.

    Args:
        judgement: Of the run's predictions.
        counter: Has seen val and test; None where there are no masks, and then nothing is added.
        network: What it watched, where it was.
        run_dir: The run's folder.
        draw: Whether figures are wanted.
    """
    if counter is None:
        return judgement
    masks = counter.table()
    masks.write(run_dir / FILE)
    if draw and find_spec("matplotlib") is not None:
        from wafer_lab.evaluation import figures

        sheet = figures.mask_sheet(examples(network, counter.datamodule, masks), "test")
        figures.save(sheet, run_dir / "figures" / MASK_SHEET)
    return replace(judgement, masks=judge_masks(masks, judgement.settings))


@torch.inference_mode()
def examples(network: nn.Module, datamodule: MapDataModule, masks: Masks) -> list[list["MaskExample"]]:
    """The test wafers to show: of every class those of median and of least IoU, see `Masks.median_and_worst`.

    Args:
        network: Trained, in evaluation mode.
        datamodule: Set up.
        masks: What the network's masks are like on it.

    Returns:
        A row per class that a test wafer has.
    """
    from wafer_lab.evaluation.figures import MaskExample

    device = next(network.parameters()).device
    test = masks.select("test")
    rows = []
    for k, name in enumerate(masks.class_names):
        positions, count = test.median_and_worst(k)
        if not count:
            continue
        asked = torch.from_numpy(positions + datamodule.first["test"]).to(device)
        batch = datamodule.draw(Request(asked, 0))
        states = datamodule.states(asked)
        truth = batch.target[:, k].cpu().numpy().astype(np.int8)
        found = called(network(batch.image).float()[:, k]).cpu().numpy()
        which = ("median", "worst") if count > 1 else ("the one",)
        of = f"of {count:,} wafers" if count > 1 else "wafer"
        texts = [
            f"{name}, {word} {of}: IoU {test.iou[position, k]:.3f}, row {test.index[position]}"
            for word, position in zip(which, positions, strict=True)
        ]
        rows.append([MaskExample(*parts) for parts in zip(states, truth, found, texts, strict=True)])
    return rows
