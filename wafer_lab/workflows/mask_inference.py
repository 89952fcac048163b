"""Drawing the failure patterns on wafers of any source, as COCO masks at the resolution of their dies."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wafer_lab.data.canvas import turn
from wafer_lab.data.coco import CocoImage, Segmentation, Written, write_coco
from wafer_lab.data.rows import OFF_WAFER, Source
from wafer_lab.data.store import Store
from wafer_lab.data.views import VIEWS
from wafer_lab.errors import UserError
from wafer_lab.models.segmenter import Segmenter
from wafer_lab.workflows.checkpoint import Loaded
from wafer_lab.workflows.devices import device_for
from wafer_lab.workflows.inference import inputs
from wafer_lab.workflows.masks import called


class CocoOptions(NamedTuple):
    """How masks are written.

    Attributes:
        segmentation: `rle` or `polygons`, see `wafer_lab.data.coco.write_coco`.
        scale: Pixels per die.
        images: A new folder for the wafers as PNG; None for none.
    """

    segmentation: Segmentation = "rle"
    scale: int = 1
    images: Path | None = None


def predict_masks(
    loaded: Loaded,
    source: Source | Store,
    out: Path,
    options: CocoOptions | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Written:
    """Write the masks that a network draws on every wafer of a source.

    A die is in a mask where its probability is 0.5 or more, on the wafer as it is; the score of a mask is the
    probability of its label, as `predict_source` gives it.

    Args:
        loaded: A trained network that draws masks, and its predictor.
        source: Of wafer maps, labelled or not.
        out: A .json file to write.
        options: How; None: run lengths, a pixel per die, no pictures.
        progress: Told how many wafers each step has finished.

    Returns:
        How many wafers and masks were written.

    Raises:
        UserError: The network draws no masks, the source does not fit it, or a file cannot be written. No partial
            file is left.
    """
    segmentation, scale, images = options or CocoOptions()
    if not isinstance(loaded.network, Segmenter):
        raise UserError(
            "this model names classes and draws no masks; write .parquet or .csv, or train task=segmentation"
        )
    wafers = _wafers(loaded, loaded.network, source, progress)
    names = loaded.predictor.class_names
    return write_coco(out, wafers, names, segmentation=segmentation, scale=scale, pictures=images)


@torch.inference_mode()
def _wafers(
    loaded: Loaded, network: Segmenter, source: Source | Store, progress: Callable[[int], None]
) -> Iterator[CocoImage]:
    device = device_for()
    predictor, row = loaded.predictor, 0
    network = network.to(device)
    for image, maps in inputs(source, loaded.config.data, device):
        outputs = (network(turn(image, view)).float() for view in VIEWS[predictor.tta])  # the wafer as it is first
        pixels = next(outputs)
        said = [network.image_logits(output).cpu() for output in (pixels, *outputs)]
        probabilities = predictor.probabilities(torch.stack(said, dim=1).numpy())
        for logits, states, scores in zip(pixels.cpu(), maps, probabilities, strict=True):
            masks = called(at_dies(logits, *states.shape)).numpy() & (states != OFF_WAFER)
            yield CocoImage(row, masks, states, np.asarray(scores))
            row += 1
        progress(len(image))


def at_dies(logits: Tensor, height: int, width: int) -> Tensor:
    """Bring logits from the canvas to the dies of a map.

    Where the canvas has a pixel for every die, a die takes that of its centre, which shows that die: the inverse of
    `wafer_lab.data.canvas.render`. A map of more dies takes values interpolated between pixels.

    Args:
        logits: (K, S, S).
        height: Rows of the map.
        width: Its columns.

    Returns:
        (K, height, width).
    """
    mode = "nearest-exact" if max(height, width) <= logits.shape[-1] else "bilinear"
    return F.interpolate(logits[None], size=(height, width), mode=mode)[0]
